"""The same call asked again: which earlier call answers it, if one does.

A call that is open, or whose answer was not collected yet, is joined. A person's denial answers for a while longer. An outcome is
given once more to a session that asks for the same call right after it: the first answer may have been lost on the way.
"""

from contextlib import suppress

from approvals import lifecycle
from approvals.errors import StoreError
from approvals.model import HeldCall
from approvals.service import ApprovalService
from gateway.call.audit import Record
from gateway.call.delivered import Given
from gateway.call.request import Asked
from gateway.call.settings import Setting
from gateway.policy.evaluation import Verdict, may_be_held, over
from gateway.tools.catalogue import Tool


class Again:
    """Finds the call that answers the same call asked again."""

    def __init__(self, service: ApprovalService, record: Record, given: Given) -> None:
        self._service = service
        self._record = record
        self._given = given

    async def find(self, asked: Asked, tool: Tool, verdict: Verdict, setting: Setting) -> HeldCall | None:
        """Return the call whose answer this one gets, or None when it is a new one."""
        found = await self._newest(asked) if may_be_held(verdict) else None
        if found is not None and (repeated := await self._repeated(asked, found)) is not None:
            return repeated
        self._given.asked(asked.place)
        if found is None or lifecycle.collectable(found, self._service.clock()):
            return found
        if self._stands(found, tool, verdict, setting):
            self._write_down(asked, found)
            return found
        return None

    async def _newest(self, asked: Asked) -> HeldCall | None:
        """Return the newest call that is the same, as collected when its answer has just been written."""
        found = await self._service.store.find(asked.key)
        if found is None or found.collected or not self._given.was_given(asked.place, found.id):
            return found
        with suppress(StoreError):
            return await self._service.collected(found.id, asked.place.session)
        return found

    async def _repeated(self, asked: Asked, held: HeldCall) -> HeldCall | None:
        """Return the call when its outcome is to be given once more."""
        session = asked.place.session
        now = self._service.clock()
        if not lifecycle.repeatable(held, now, session) or not self._given.is_last(asked.place, held.id):
            return None
        return await self._service.repeat(held.id, session)

    def _stands(self, held: HeldCall, tool: Tool, verdict: Verdict, setting: Setting) -> bool:
        """Say whether a denial still answers: its time is not over, and the call is judged as it was, for the same server."""
        now = (setting.policy.revision, tool.hash, setting.identities.get(held.call.server))
        return (
            (held.policy_revision, held.definition, held.identity) == now
            and held.rule in {verdict.rule, over(verdict).rule}
            and lifecycle.stands(held, self._service.clock())
        )

    def _write_down(self, asked: Asked, held: HeldCall) -> None:
        denier = held.denial.approver if held.denial else ""
        self._record.at_most_once_a_minute(
            asked.incoming, "call.denied", about=held.id,
            tool=asked.frame.name, rule=held.rule, denial=held.id, by=denier,
        )  # fmt: skip
