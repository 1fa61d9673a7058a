"""The hash chain of the audit trail: each event holds the hash of the previous event, so every change can be detected.

An event's hash is the SHA-256 (with a key: HMAC-SHA-256) of its number, a space, the previous hash, a space, and the
JSON array of its values from `at` to `detail`. `detail` is a string in that array: its JSON, with sorted members.
The chain alone reveals an edited, removed, reordered or inserted event. A truncated or rewritten trail is revealed by a
checkpoint (the last event's hash) that was kept elsewhere, or by a key that the writer did not have.
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
class BrokenLink:
    """The first event that breaks the chain, and why."""

    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last event of a trail at some time. Kept elsewhere, it reveals a truncated or rewritten trail."""

    seq: int
    hash: str

    def __str__(self) -> str:
        """Return the form that `parse` reads."""
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Parse a printed checkpoint, `NUMBER:HASH`; raises `ValueError` for anything else."""
        seq, _, digest = text.strip().partition(":")
        if not (seq.isdecimal() and seq.isascii() and re.fullmatch("[0-9a-f]{64}", digest)):
            raise ValueError(
                f"{text!r} is not a checkpoint; pass the line that an earlier verify printed: a number, a colon and a hash."
            )
        return cls(int(seq), digest)


class EncodedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event encoded for the trail: the values of its row from `at` to `detail`, and their JSON."""

    values: tuple[Any, ...]
    data: bytes

    def to_row(self, seq: int, prev: str, key: bytes = b"") -> tuple[Any, ...]:
        """Return the row of this event as number *seq*, after the event with the hash *prev*."""
        data = b"%d %s %s" % (seq, prev.encode(), self.data)
        digest = hmac.digest(key, data, "sha256") if key else hashlib.sha256(data).digest()
        return (seq, *self.values, prev, digest.hex())


class EventTemplate:
    """The encoded events that differ only in their time, and belong to no held call."""

    __slots__ = ("_data", "_values")

    def __init__(
        self, *, kind: str, actor: str, agent: str = "", server: str = "", tool: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Encode everything but the time; raises `StoreError` when it cannot be written as JSON."""
        entry = encode_event(
            AuditEvent(
                at=0.0, kind=kind, actor=actor, agent=agent, server=server, tool=tool, detail=detail or {}
            )
        )
        self._values = entry.values[1:]
        self._data = entry.data.removeprefix(b"[0.0")

    def at(self, time: float) -> EncodedEvent:
        """Return the event at *time*: equal to `encode_event` of the same `AuditEvent`."""
        at = float(time)
        return EncodedEvent((at, *self._values), b"[" + _encode(at) + self._data)


def encode_event(event: AuditEvent) -> EncodedEvent:
    """Encode an event; raises `StoreError` when it cannot be written as JSON."""
    try:
        detail = _encode(event.detail).decode()
        values = (
            float(event.at), event.kind, event.actor, event.call, event.agent, event.server, event.tool, detail,
        )  # fmt: skip
        return EncodedEvent(values, _encode(values))
    except (TypeError, ValueError) as error:
        raise StoreError(f"The audit event {event.kind!r} cannot be written: {error}.") from error


def verify(
    events: Iterable[AuditEvent],
    key: bytes = b"",
    checkpoint: Checkpoint | None = None,
    *,
    start: AuditEvent | None = None,
) -> BrokenLink | None:
    """Return the first event that breaks the chain, or None when the chain is whole and contains *checkpoint*.

    *start* is the first of *events*; with it, only the chain from there on is verified.
    """
    seq, prev = (start.seq - 1, start.prev) if start else (0, "")
    for event in events:
        if why := _find_fault(event, seq + 1, prev, key):
            return BrokenLink(seq=seq + 1, why=why)
        seq, prev = event.seq, event.hash
        if checkpoint is not None and seq == checkpoint.seq and prev != checkpoint.hash:
            return BrokenLink(seq=seq, why="it is not the event of the checkpoint")
    if checkpoint is not None and seq < checkpoint.seq:
        return BrokenLink(seq=seq + 1, why=f"the trail ends before event {checkpoint.seq} of the checkpoint")
    return None


def _find_fault(event: AuditEvent, seq: int, prev: str, key: bytes) -> str:
    if event.seq != seq:
        return f"event {event.seq} is in its place"
    if event.prev != prev:
        return "it does not follow the event before it"
    *_, digest = encode_event(event).to_row(seq, prev, key)
    return "" if hmac.compare_digest(event.hash.encode(), digest.encode()) else "its content was changed"


def to_json_line(event: AuditEvent) -> bytes:
    """Return the event as one line of JSON; every character that is not printable is escaped."""
    text = _encode(event).decode()
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text).encode()


def from_json_line(line: bytes) -> AuditEvent:
    """Parse one line of an export; raises `msgspec.MsgspecError` for anything else."""
    return _decode(line)


def from_row(row: tuple[Any, ...]) -> AuditEvent:
    """Return the event of a row; its values are in the order of `COLUMNS`."""
    values = dict(zip(COLUMNS, row, strict=True))
    return AuditEvent(**(values | {"detail": _detail(values["detail"])}))
