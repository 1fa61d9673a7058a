"""Reading the audit trail from its file, beside a gateway that may be writing it: to look, to check, to export."""

import time
from collections.abc import Iterator
from pathlib import Path

from approvals import audit
from approvals.audit import Checkpoint
from approvals.model import AuditEvent
from approvals.store import read_only
from gateway.app.gateway import MEMORY, database_path
from gateway.errors import UserError

#: Seconds between looks for new events when following.
LOOK = 0.5


class TrailNotFound(UserError):
    """There is no audit trail to read; the message says why."""


class BrokenTrail(UserError):
    """The audit trail is not what was written; the message says where."""


def trail_file(store: str) -> Path:
    """Return the file that holds the trail of this store; raises `NoTrail`."""
    if store == MEMORY:
        raise TrailNotFound("A store in memory leaves no audit trail behind; use store: sqlite:///okayed.db")
    if not (path := database_path(store)).exists():
        raise TrailNotFound(f"There is no {path} yet; it is made when the gateway first runs.")
    return path


def verify_trail(path: Path, key: bytes, checkpoint: Checkpoint | None) -> tuple[int, Checkpoint | None]:
    """Check a trail; returns how many events it has and the checkpoint of now. Raises `BrokenTrail`."""
    count, head = 0, None

    def counted() -> Iterator[AuditEvent]:
        nonlocal count, head
        for event in read_only.events(path):
            count, head = count + 1, Checkpoint(event.seq, event.hash)
            yield event

    if (broken := audit.verify(counted(), key, checkpoint)) is not None:
        raise BrokenTrail(f"{path}: event {broken.seq} is not what was written: {broken.why}.")
    return count, head


def read_events(store: str, *, tool: str, agent: str, since: float, follow: bool) -> Iterator[AuditEvent]:
    """Yield events in order, narrowed by what is given; with *follow* go on as they come."""
    path, last = trail_file(store), 0
    while True:
        for event in read_only.events(path, after=last):
            last = event.seq
            if event.at >= since and tool in ("", event.tool) and agent in ("", event.agent):
                yield event
        if not follow:
            return
        time.sleep(LOOK)
