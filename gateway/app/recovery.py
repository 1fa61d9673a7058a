"""Detects at startup whether the store was restored from a copy, and ends the calls that wait in it.

In a copy, a call may be approved that has run since, or pending that has been denied since. So waiting calls
become void, and calls that were forwarding are in doubt. A copy is detected by the start counts in the store and in its
`.lock`, or by the external checkpoint. A copy made after the last checkpoint and restored with its `.lock` is not.
"""

import logging

from approvals.audit import Checkpoint
from approvals.call_events import GATEWAY
from approvals.model import AuditEvent
from approvals.service import ApprovalService
from approvals.store import StartCounts, Store, TrailReader
from gateway.app.checkpoints import ExternalCheckpoint

log = logging.getLogger("okayed")


async def record_start(
    service: ApprovalService, store: Store, checkpoint: ExternalCheckpoint | None, *, forced: bool
) -> None:
    """End the waiting calls if the store was restored, then increment the start count; raises `StoreError`.

    *forced* treats the store as restored. After a crash before the increment, the next start detects the copy again.
    """
    starts = await store.start_counts()
    if why := "started with --restored" if forced else await _restore_evidence(store, starts, checkpoint):
        store.mark_restored()
        ended = await service.end_restored()
        numbers = {
            "starts": starts.store,
            "noted": starts.noted,
            "outside": checkpoint.starts if checkpoint else None,
        }
        detail = {"why": why, **numbers, **ended}
        await store.append(AuditEvent(at=service.wall(), kind="store.restored", actor=GATEWAY, detail=detail))
        log.warning("the store was restored from a copy (%s); the calls that waited in it are void", why)
    await store.count_start()


async def _restore_evidence(
    store: TrailReader, starts: StartCounts, checkpoint: ExternalCheckpoint | None
) -> str:
    """Return the evidence that the store was restored, or ""."""
    if not starts.agree:
        return "the store and its .lock have different start counts"
    if checkpoint is None:
        return ""
    if checkpoint.starts > starts.store:
        return "the external checkpoint has a higher start count"
    known = Checkpoint.parse(checkpoint.checkpoint)
    found = await store.events(after=known.seq - 1, limit=1)
    if [(event.seq, event.hash) for event in found] != [(known.seq, known.hash)]:
        return "the store lacks the event of the external checkpoint"
    return ""
