"""What comes first when a gateway starts: is the store the one that was left, or a copy that was put back?

In a copy a call may be approved that has run since, or pending that was denied since. So what waits in it is void, and
what was on its way is in doubt. A copy shows by the count of starts, which the store and its `.lock` both have, or by
the checkpoint outside. One that was made after the last checkpoint, and put back together with its `.lock`, does not.
"""

import logging

from approvals.audit import Checkpoint
from approvals.call_events import GATEWAY
from approvals.model import AuditEvent
from approvals.service import ApprovalService
from approvals.store import StartCounts, TrailReader
from gateway.app.checkpoints import ExternalCheckpoint

log = logging.getLogger("okayed")


async def record_start(service: ApprovalService, kept: ExternalCheckpoint | None, *, forced: bool) -> None:
    """End what waits in a store that was put back, then count this start; raises `StoreError`.

    *kept* is the checkpoint outside. A crash before the count is done leaves a copy that the next start finds again.
    """
    store = service.store
    starts = await store.start_counts()
    if why := "the operator says so" if forced else await _put_back(store, starts, kept):
        store.mark_restored()
        came_to = await service.end_restored()
        numbers = {"starts": starts.store, "noted": starts.noted, "outside": kept.starts if kept else None}
        detail = {"why": why, **numbers, **came_to}
        await store.append(AuditEvent(at=service.wall(), kind="store.restored", actor=GATEWAY, detail=detail))
        log.warning("the store was put back from a copy (%s); what waited in it is void", why)
    await store.count_start()


async def _put_back(store: TrailReader, starts: StartCounts, kept: ExternalCheckpoint | None) -> str:
    """Say by what the store shows that it was put back; "" when it does not."""
    if not starts.agree:
        return "the store and its .lock do not count the same starts"
    if kept is None:
        return ""
    if kept.starts > starts.store:
        return "the checkpoint outside counts more starts"
    known = Checkpoint.parse(kept.checkpoint)
    found = await store.events(after=known.seq - 1, limit=1)
    if [(event.seq, event.hash) for event in found] != [(known.seq, known.hash)]:
        return "the store lacks the event of the checkpoint outside"
    return ""
