"""The history of a run: five logs, which `history_checks` compares with the promises of Okayed (PURE).

They are the requests of clients, the reviews of approvers, the calls that servers received, the audit trail, and the
held calls at the end. The clients put a different marker into the arguments of each call that they intend, and repeat
the call with the same marker.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from approvals.audit import Checkpoint
from approvals.model import AuditEvent, Decision, HeldCall


class Answer(StrEnum):
    """The kind of an answer to a client."""

    RESULT = "result"
    DENIED = "denied"
    #: Expired, cancelled, voided or not sent: the call did not run.
    NOT_RUN = "not run"
    #: The call waits or runs.
    WAITING = "waiting"
    IN_DOUBT = "in doubt"
    RESOLVED = "resolved"
    #: The connection broke, or the gateway reported a fault of its own.
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request of a client, and its answer; `sent` and `answered` are places in the order of the run."""

    agent: str
    server: str
    tool: str
    #: The exact bytes.
    arguments: bytes
    sent: int
    answered: int
    answer: Answer
    text: str = ""
    #: The held call that the answer names.
    call: str = ""
    #: The time at which that call expires, if it is pending.
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenReview:
    """An approver's answer to a call, and whether the gateway acknowledged it."""

    call: str
    approver: str
    decision: Decision
    acknowledged: bool
    #: The number of the last event in the trail when the acknowledgement came; None when it is not known.
    head: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCall:
    """A call that a server received."""

    server: str
    tool: str
    #: The exact bytes.
    arguments: bytes
    #: Its place in the order of the run.
    at: int
    #: The number of the last event in the trail when the call arrived; None when it is not known.
    head: int | None = None
    #: Whether the server broke the connection in place of an answer.
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """The sudden end of a gateway, or its suspension for longer than its lease."""

    #: The number of the last event in the trail when it had ended.
    head: int
    #: Its replica id; "" when the gateway was alone.
    replica: str = ""


@dataclass(frozen=True, kw_only=True)
class History:
    """The logs of one run."""

    requests: Sequence[Request] = ()
    reviews: Sequence[GivenReview] = ()
    received: Sequence[ReceivedCall] = ()
    events: Sequence[AuditEvent] = ()
    calls: Sequence[HeldCall] = ()
    kills: Sequence[Kill] = ()
    #: Ids and versions of held calls that the store acknowledged.
    acknowledged: Sequence[tuple[str, int]] = ()
    #: Heads of the trail that were seen during the run.
    heads: Sequence[Checkpoint] = ()
    chain_key: bytes = b""
    #: The tools that need no approval.
    free: frozenset[str] = frozenset()

    @cached_property
    def by_id(self) -> Mapping[str, HeldCall]:
        return {call.id: call for call in self.calls}

    @cached_property
    def changes(self) -> Mapping[str, Sequence[AuditEvent]]:
        """The events that changed each call, in the order of the trail."""
        found: defaultdict[str, list[AuditEvent]] = defaultdict(list)
        for event in self.events:
            if event.call is not None and "version" in event.detail:
                found[event.call].append(event)
        return found

    @cached_property
    def forwarded(self) -> Mapping[str, Sequence[int]]:
        """The numbers of the `hold.forwarding` events of each call."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for event in self.events:
            if event.kind == "hold.forwarding":
                found[event.call or ""].append(event.seq)
        return found

    @cached_property
    def held(self) -> Mapping[tuple[str, str, bytes], Sequence[HeldCall]]:
        """The held calls by server, tool and exact arguments."""
        found: defaultdict[tuple[str, str, bytes], list[HeldCall]] = defaultdict(list)
        for call in self.calls:
            found[call.call.server, call.call.tool, call.call.arguments].append(call)
        return found

    @cached_property
    def arrivals(self) -> Mapping[tuple[str, str, bytes], Sequence[ReceivedCall]]:
        """The received calls by server, tool and exact arguments."""
        found: defaultdict[tuple[str, str, bytes], list[ReceivedCall]] = defaultdict(list)
        for one in self.received:
            found[subject(one)].append(one)
        return found

    def sends(self, key: tuple[str, str, bytes]) -> int:
        """Return how many times the trail says that this call was sent."""
        return sum(len(self.forwarded.get(call.id, ())) for call in self.held.get(key, ()))


def subject(one: Request | ReceivedCall) -> tuple[str, str, bytes]:
    return one.server, one.tool, one.arguments


def marker(arguments: bytes) -> str:
    """Return the marker in a call's arguments."""
    return str(json.loads(arguments).get("marker"))
