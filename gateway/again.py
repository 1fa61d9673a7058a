"""The same call asked again: which earlier call answers it, if one does.

A call that is open, or whose answer was not collected yet, is joined. A person's denial answers for a while longer.
"""

from collections import OrderedDict

from approvals import lifecycle
from approvals.model import CallId, HeldCall
from approvals.service import ApprovalService
from gateway.catalogue import Tool
from gateway.incoming import Asked
from gateway.policy import Verdict, over
from gateway.record import Record

#: Seconds between two audit events about one denial that answers again and again, and how many denials are kept apart.
EVENT_EVERY = 60.0
MAX_DENIALS = 10_000


class Again:
    """Finds the call that answers the same call asked again."""

    def __init__(self, service: ApprovalService, record: Record) -> None:
        self._service = service
        self._record = record
        #: When each denial that answered again was last written down.
        self._written: OrderedDict[CallId, float] = OrderedDict()

    async def find(self, asked: Asked, tool: Tool, verdict: Verdict, revision: str) -> HeldCall | None:
        """Return the call whose answer this one gets, or None when it is a new one. *revision* is the policy's."""
        found = await self._service.store.find(asked.key)
        if found is None or lifecycle.collectable(found, self._service.clock()):
            return found
        if self._stands(found, tool, verdict, revision):
            self._write_down(asked, found)
            return found
        return None

    def _stands(self, held: HeldCall, tool: Tool, verdict: Verdict, revision: str) -> bool:
        """Say whether a denial still answers: its time is not over, and the call is judged as it was."""
        same = (held.policy_revision, held.definition) == (revision, tool.hash)
        return (
            same
            and held.rule in {verdict.rule, over(verdict).rule}
            and lifecycle.stands(held, self._service.clock())
        )

    def _write_down(self, asked: Asked, held: HeldCall) -> None:
        now = self._service.clock()
        if now < self._written.get(held.id, 0.0) + EVENT_EVERY:
            return
        self._written[held.id] = now
        self._written.move_to_end(held.id)
        if len(self._written) > MAX_DENIALS:
            self._written.popitem(last=False)
        denier = held.denial.approver if held.denial else ""
        self._record.post(
            asked.incoming, "call.denied", tool=asked.frame.name, rule=held.rule, denial=held.id, by=denier
        )
