"""A held call without its content: enough to sweep, count and list calls, too little to review or run one (PURE).

A call may have megabytes of arguments. What goes over many calls reads these few hundred bytes of each instead.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from approvals.model import CallId, Classification, HeldCall, Review, State, Terms
from approvals.redact import truncate_json

#: The most bytes of the arguments that are kept in a summary.
BEGINNING = 1024
#: What a call counts for beside the bytes that its agent sent: its row, its summary and its events.
ROW = 4096
One = TypeVar("One")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallHeader:
    """Who calls what."""

    agent: str
    owner: str | None
    server: str
    tool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The fields of `HeldCall` that are short, under the same names."""

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
    attended: bool
    task: bool
    #: Whether as many people have approved as must, and whether the server reported a failure.
    enough: bool
    failed: bool
    #: The first bytes of the arguments, closed where they break off.
    beginning: bytes
    #: Bytes that the call counts for.
    size: int


def summary(held: HeldCall) -> Summary:
    """Return the summary of a held call."""
    call = held.call
    return Summary(
        id=held.id,
        version=held.version,
        state=held.state,
        call=CallHeader(agent=call.agent, owner=call.owner, server=call.server, tool=call.tool),
        terms=held.terms,
        classification=replace(held.classification, evidence=()),
        definition=held.definition,
        identity=held.identity,
        created_at=held.created_at,
        expires_at=held.expires_at,
        decided_at=held.decided_at,
        settled_at=held.settled_at,
        reviews=tuple(replace(review, reason="") for review in held.reviews),
        attended=held.attended,
        task=held.task,
        enough=held.enough,
        failed=held.failed,
        beginning=truncate_json(call.arguments, BEGINNING),
        size=size(held),
    )


def size(held: HeldCall) -> int:
    """Return how many bytes a held call counts for: what its agent sent, and its row."""
    call = held.call
    return ROW + len(call.arguments) + len(call.extra_params) + len(call.envelope)


def limit_size(sized: Iterable[tuple[One, int]], room: float) -> Iterator[One]:
    """Yield the first, and then the next ones as long as all of them have at most *room* bytes."""
    taken = 0
    for one, bytes_ in sized:
        if taken and taken + bytes_ > room:
            return
        taken += bytes_
        yield one
