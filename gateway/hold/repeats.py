"""The same call asked again: which earlier call answers it, if one does.

A call that is open, or whose answer was not collected yet, is joined. A person's denial answers for a while longer. An outcome is
given once more to a session that asks for the same call right after it: the first answer may have been lost on the way.
"""

from contextlib import suppress

from approvals import lifecycle
from approvals.errors import StoreError
from approvals.model import HeldCall
from approvals.service import ApprovalService
from gateway.call.audit import AuditLog
from gateway.call.delivered import DeliveredAnswers
from gateway.call.request import CallRequest
from gateway.call.settings import ProxySettings
from gateway.policy.evaluation import Verdict, can_hold, require_approval
from gateway.tools.catalogue import Tool


class Repeats:
    """Finds the call that answers the same call asked again."""

    def __init__(self, service: ApprovalService, audit: AuditLog, given: DeliveredAnswers) -> None:
        self._service = service
        self._audit = audit
        self._given = given

    async def find(
        self, request: CallRequest, tool: Tool, verdict: Verdict, settings: ProxySettings
    ) -> HeldCall | None:
        """Return the call whose answer this one gets, or None when it is a new one."""
        found = await self._newest(request) if can_hold(verdict) else None
        if found is not None and (repeated := await self._repeated(request, found)) is not None:
            return repeated
        self._given.asked(request.session_key)
        if found is None or lifecycle.can_join(found, self._service.clock()):
            return found
        if self._stands(found, tool, verdict, settings):
            self._write_down(request, found)
            return found
        return None

    async def _newest(self, request: CallRequest) -> HeldCall | None:
        """Return the newest call that is the same, as collected when its answer has just been written."""
        found = await self._service.store.find(request.key)
        if found is None or found.collected or not self._given.was_given(request.session_key, found.id):
            return found
        with suppress(StoreError):
            return await self._service.record_collected(found.id, request.session_key.session)
        return found

    async def _repeated(self, request: CallRequest, held: HeldCall) -> HeldCall | None:
        """Return the call when its outcome is to be given once more."""
        session = request.session_key.session
        now = self._service.clock()
        if not lifecycle.can_repeat(held, now, session) or not self._given.is_last(
            request.session_key, held.id
        ):
            return None
        return await self._service.claim_repeat(held.id, session)

    def _stands(self, held: HeldCall, tool: Tool, verdict: Verdict, settings: ProxySettings) -> bool:
        """Say whether a denial still answers: its time is not over, and the call is judged as it was, for the same server."""
        now = (settings.policy.revision, tool.hash, settings.identities.get(held.call.server))
        return (
            (held.policy_revision, held.definition, held.identity) == now
            and held.rule in {verdict.rule, require_approval(verdict).rule}
            and lifecycle.is_still_denied(held, self._service.clock())
        )

    def _write_down(self, request: CallRequest, held: HeldCall) -> None:
        denier = held.denial.approver if held.denial else ""
        self._audit.at_most_once_a_minute(
            request.exchange, "call.denied", about=held.id,
            tool=request.frame.name, rule=held.rule, denial=held.id, by=denier,
        )  # fmt: skip
