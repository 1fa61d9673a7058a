"""Finds the held call that answers a repeat: the same call, sent again by its agent.

A repeat joins an open call, or collects an answer that was not collected. A person's denial answers repeats for a
while. An outcome is sent once more to a session that repeats the call right after it, since the first answer may have
been lost.
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
    """Finds the held call for each repeat."""

    def __init__(self, service: ApprovalService, audit: AuditLog, delivered: DeliveredAnswers) -> None:
        self._service = service
        self._audit = audit
        self._delivered = delivered

    async def find(
        self, request: CallRequest, tool: Tool, verdict: Verdict, settings: ProxySettings
    ) -> HeldCall | None:
        """Return the call that answers this request; None if the request is a new call."""
        found = await self._find_newest(request) if can_hold(verdict) else None
        if found is not None and (repeated := await self._repeat_outcome(request, found)) is not None:
            return repeated
        self._delivered.record_request(request.session_key)
        if found is None or lifecycle.can_join(found, self._service.clock()):
            return found
        if self._is_still_denied(found, tool, verdict, settings):
            self._record_denial(request, found)
            return found
        return None

    async def _find_newest(self, request: CallRequest) -> HeldCall | None:
        """Return the newest call with the same key, marked as collected if its answer was just written."""
        found = await self._service.store.find(request.key)
        if found is None or found.collected:
            return found
        if (receiver := self._delivered.find_receiver(request.session_key, found.id)) is None:
            return found
        with suppress(StoreError):
            return await self._service.record_collected(found.id, receiver.session)
        return found

    async def _repeat_outcome(self, request: CallRequest, held: HeldCall) -> HeldCall | None:
        """Return the call if its outcome may be sent once more to this session."""
        key, now = request.session_key, self._service.clock()
        if lifecycle.can_repeat(held, now, key.session) and self._delivered.is_last(key, held.id):
            return await self._service.claim_repeat(held.id, key.session)
        return None

    def _is_still_denied(self, held: HeldCall, tool: Tool, verdict: Verdict, settings: ProxySettings) -> bool:
        """Return whether a denial answers this repeat: it is recent, and policy, tool and server are unchanged."""
        current = (settings.policy.revision, tool.hash, settings.identities.get(held.call.server))
        return (
            (held.policy_revision, held.definition, held.identity) == current
            and held.rule in {verdict.rule, require_approval(verdict).rule}
            and lifecycle.is_still_denied(held, self._service.clock())
        )

    def _record_denial(self, request: CallRequest, held: HeldCall) -> None:
        denier = held.denial.approver if held.denial else ""
        self._audit.at_most_once_a_minute(
            request.exchange, "call.denied", about=held.id,
            tool=request.frame.name, rule=held.rule, denial=held.id, by=denier,
        )  # fmt: skip
