"""Summaries of held calls: enough to sweep, count and list calls, not enough to review or run one (PURE).

A call may have megabytes of arguments. Code that iterates over many calls reads a few hundred bytes of each instead.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from approvals.model import CallId, Classification, HeldCall, Review, State, Terms
from approvals.redact import truncate_json

#: The most bytes of the arguments that are kept in a summary.
BEGINNING = 1024
#: Bytes that a call takes besides those that its agent sent: its row, its summary and its events.
ROW_BYTES = 4096
Item = TypeVar("Item")


class CallHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The agent, its owner, the server and the tool of a call."""

    agent: str
    owner: str | None
    server: str
    tool: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The short fields of `HeldCall`, under the same names. A store holds it as sealed JSON: the names cannot change."""

    id: CallId
    version: int
    state: State
    call: CallHeader
    terms: Terms
    #: Without the evidence.
    classification: Classification
    definition: str
    identity: str
    created_at: float
    expires_at: float
    decided_at: float | None
    settled_at: float | None
    #: Without the reasons.
    reviews: tuple[Review, ...]
    task: bool
    #: Whether enough people have approved, and whether the server reported a failure.
    enough: bool
    failed: bool
    #: The beginning of the arguments, as valid JSON.
    beginning: bytes
    #: See `size`.
    size: int
    #: The replica that claimed the call; an older version stored none.
    runner: str = ""


def summarize(held: HeldCall) -> Summary:
    """Return the summary of a held call."""
    call, known = held.call, held.classification
    return Summary(
        id=held.id,
        version=held.version,
        state=held.state,
        call=CallHeader(agent=call.agent, owner=call.owner, server=call.server, tool=call.tool),
        terms=held.terms,
        classification=Classification(category=known.category, risk=known.risk, severity=known.severity),
        definition=held.definition,
        identity=held.identity,
        created_at=held.created_at,
        expires_at=held.expires_at,
        decided_at=held.decided_at,
        settled_at=held.settled_at,
        reviews=tuple(replace(review, reason="") for review in held.reviews),
        task=held.task,
        enough=held.enough,
        failed=held.failed,
        beginning=truncate_json(call.arguments, BEGINNING),
        size=size(held),
        runner=held.runner,
    )


def size(held: HeldCall) -> int:
    """Return the bytes that a held call takes: those that its agent sent, and ROW_BYTES."""
    call = held.call
    return ROW_BYTES + len(call.arguments) + len(call.extra_params) + len(call.envelope)


def limit_size(sized: Iterable[tuple[Item, int]], room: float) -> Iterator[Item]:
    """Yield the first item, and further items while their total size is at most *room* bytes."""
    taken = 0
    for item, bytes_ in sized:
        if taken and taken + bytes_ > room:
            return
        taken += bytes_
        yield item
