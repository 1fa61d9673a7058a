"""The audit trail's hash chain: each event carries the hash of the one before it, so a change anywhere shows.

The chain alone finds an edit, a removal, a reordering, an insertion. A cut tail or a trail written wholly anew shows
against a checkpoint (the last event's hash) that was kept elsewhere, or under a key that the writer did not have.
"""

import hashlib
import hmac
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from approvals.model import AuditEvent

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(AuditEvent).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The first event that is not what was written."""

    seq: int
    why: str


def link(event: AuditEvent, last: AuditEvent | None, key: bytes = b"") -> AuditEvent:
    """Return *event* as the one that follows *last*."""
    linked = replace(event, seq=last.seq + 1 if last else 1, prev=last.hash if last else "", hash="")
    return replace(linked, hash=_hash(linked, key))


def _hash(event: AuditEvent, key: bytes) -> str:
    data = _encode(replace(event, hash=""))
    return hmac.new(key, data, hashlib.sha256).hexdigest() if key else hashlib.sha256(data).hexdigest()


def verify(events: Iterable[AuditEvent], key: bytes = b"", checkpoint: AuditEvent | None = None) -> Broken | None:
    """Return the first event that breaks the chain, or None when it is whole up to *checkpoint*."""
    last: AuditEvent | None = None
    for event in events:
        if why := _wrong(event, last, key):
            return Broken(seq=event.seq, why=why)
        if checkpoint is not None and event.seq == checkpoint.seq and event.hash != checkpoint.hash:
            return Broken(seq=event.seq, why="it is not the event of the checkpoint")
        last = event
    seen = last.seq if last else 0
    if checkpoint is not None and seen < checkpoint.seq:
        return Broken(seq=seen + 1, why=f"the trail ends before event {checkpoint.seq} of the checkpoint")
    return None


def _wrong(event: AuditEvent, last: AuditEvent | None, key: bytes) -> str:
    if event.seq != (last.seq + 1 if last else 1):
        return f"event {last.seq + 1 if last else 1} should stand here"
    if event.prev != (last.hash if last else ""):
        return "it does not follow the event before it"
    return "" if hmac.compare_digest(event.hash, _hash(event, key)) else "its content was changed"


def to_json_line(event: AuditEvent) -> bytes:
    """Return the event as one line of JSON, control characters and line separators escaped."""
    return _encode(event).replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")


def from_json_line(line: bytes) -> AuditEvent:
    """Read one line of an export; raises `msgspec.MsgspecError` when it is none."""
    return _decode(line)


def read(path: Path, *, after: int = 0) -> Iterator[AuditEvent]:
    """Yield the events of a trail in order: of a store's file, also while a gateway writes it, or of an export."""
    with path.open("rb") as file:
        is_store = file.read(len(_SQLITE)) == _SQLITE
    events = _read_store(path, after) if is_store else _read_export(path)
    return (event for event in events if event.seq > after)


_SQLITE = b"SQLite format 3\x00"


def _read_export(path: Path) -> Iterator[AuditEvent]:
    with path.open("rb") as file:
        for line in file:
            yield from_json_line(line)


def _read_store(path: Path, after: int) -> Iterator[AuditEvent]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        for (value,) in connection.execute("SELECT value FROM events WHERE seq > ? ORDER BY seq", (after,)):
            yield from_json_line(value)
    finally:
        connection.close()
