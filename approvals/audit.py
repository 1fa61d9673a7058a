"""The audit trail's hash chain: each event carries the hash of the one before it, so a change anywhere shows.

An event's hash is the SHA-256 (under a key: HMAC-SHA-256) of its number, a space, the hash of the one before, a space,
and the JSON array of its values from `at` to `detail`; `detail` stands in it as text: its JSON, members sorted. The chain alone finds an edit, a removal, a reordering, an insertion.
A cut tail or a trail written wholly anew shows against a checkpoint (the last event's hash) that was kept elsewhere,
or under a key that the writer did not have.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from approvals.errors import StoreError
from approvals.model import AuditEvent

#: An event's values in the order of a table's columns.
COLUMNS = ("seq", "at", "kind", "actor", "call", "agent", "server", "tool", "detail", "prev", "hash")

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(AuditEvent).decode
_detail = msgspec.json.Decoder(Mapping[str, Any]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The first event that is not what was written."""

    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last event of a trail as it was once. Kept elsewhere, it shows a tail that was cut and a trail written anew."""

    seq: int
    hash: str

    def __str__(self) -> str:
        """Return it as `parse` reads it."""
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read a checkpoint as it was printed; raises `ValueError` that says what one looks like."""
        seq, _, digest = text.strip().partition(":")
        if not (seq.isdecimal() and seq.isascii() and re.fullmatch("[0-9a-f]{64}", digest)):
            raise ValueError(
                f"{text!r} is no checkpoint; give what an earlier verify printed, a number, a colon and a hash."
            )
        return cls(int(seq), digest)


@dataclass(frozen=True, slots=True)
class Entry:
    """An event made ready to be linked and written: its row's values from `at` to `detail`, and those as JSON."""

    values: tuple[Any, ...]
    data: bytes

    def linked(self, seq: int, prev: str, key: bytes = b"") -> tuple[Any, ...]:
        """Return the row of this event as number *seq*, behind the event whose hash is *prev*."""
        data = b"%d %s %s" % (seq, prev.encode(), self.data)
        made = hmac.digest(key, data, "sha256") if key else hashlib.sha256(data).digest()
        return (seq, *self.values, prev, made.hex())


def entry(event: AuditEvent) -> Entry:
    """Make *event* ready; raises `StoreError` when it cannot be written as JSON."""
    try:
        detail = _encode(event.detail).decode()
        values = (
            float(event.at), event.kind, event.actor, event.call, event.agent, event.server, event.tool, detail,
        )  # fmt: skip
        return Entry(values, _encode(values))
    except (TypeError, ValueError) as error:
        raise StoreError(f"The audit event {event.kind!r} cannot be written: {error}.") from error


def link(event: AuditEvent, seq: int, prev: str, key: bytes = b"") -> AuditEvent:
    """Return *event* as number *seq* of the trail, behind the event whose hash is *prev*."""
    return from_row(entry(event).linked(seq, prev, key))


def verify(
    events: Iterable[AuditEvent],
    key: bytes = b"",
    checkpoint: Checkpoint | None = None,
    *,
    start: AuditEvent | None = None,
) -> Broken | None:
    """Return the first event that breaks the chain, or None when it is whole up to *checkpoint*.

    With *start*, the first of *events*, only the chain from there on is looked at.
    """
    seq, prev = (start.seq - 1, start.prev) if start else (0, "")
    for event in events:
        if why := _wrong(event, seq + 1, prev, key):
            return Broken(seq=seq + 1, why=why)
        seq, prev = event.seq, event.hash
        if checkpoint is not None and seq == checkpoint.seq and prev != checkpoint.hash:
            return Broken(seq=seq, why="it is not the event of the checkpoint")
    if checkpoint is not None and seq < checkpoint.seq:
        return Broken(seq=seq + 1, why=f"the trail ends before event {checkpoint.seq} of the checkpoint")
    return None


def _wrong(event: AuditEvent, seq: int, prev: str, key: bytes) -> str:
    if event.seq != seq:
        return f"event {event.seq} stands in its place"
    if event.prev != prev:
        return "it does not follow the event before it"
    *_, made = entry(event).linked(seq, prev, key)
    return "" if hmac.compare_digest(event.hash.encode(), made.encode()) else "its content was changed"


def to_json_line(event: AuditEvent) -> bytes:
    """Return the event as one line of JSON, with everything escaped that is more than a visible letter."""
    text = _encode(event).decode()
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text).encode()


def from_json_line(line: bytes) -> AuditEvent:
    """Read one line of an export; raises `msgspec.MsgspecError` when it is none."""
    return _decode(line)


def from_row(row: tuple[Any, ...]) -> AuditEvent:
    """Return the event of a row in the order of `COLUMNS`."""
    values = dict(zip(COLUMNS, row, strict=True))
    return AuditEvent(**(values | {"detail": _detail(values["detail"])}))
