"""The values everything else speaks of: tool call, terms, held call, review, approver, notice, audit event.

All are frozen; a change is a new value made with `dataclasses.replace`. Times are epoch seconds (UTC).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

import msgspec

from approvals.errors import TooMany

CallId = NewType("CallId", str)
"""The id of a held call: `hold_` and a lower-case ULID; `hp_` and a ULID if an earlier version made it."""
CALL_ID_PREFIXES = ("hold_", "hp_")


class State(StrEnum):
    """Where a held call is in its life; the law of it is `lifecycle.TRANSITIONS`."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    VOIDED = "voided"
    FORWARDING = "forwarding"
    COMPLETED = "completed"
    UPSTREAM_ERROR = "upstream_error"
    NOT_SENT = "not_sent"
    IN_DOUBT = "in_doubt"
    RESOLVED = "resolved"


class Decision(StrEnum):
    """What one approver said."""

    APPROVE = "approve"
    DENY = "deny"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One MCP `tools/call`, immutable: the gateway judges, shows and sends this value.

    A change is a new value made with `msgspec.structs.replace`. A store holds it as sealed JSON, so the stored names of
    its fields cannot change: see `name=`.
    """

    agent: str
    #: The person behind the agent; None when nobody was named.
    owner: str | None = None
    #: The agent's session, or the agent where the protocol has none. For display and limits, never for access.
    session: str = ""
    server: str
    tool: str
    #: The exact bytes of the JSON object as received.
    arguments: bytes
    #: The other params that reach the server, as a JSON object; b"" for none. Shown and approved with the arguments.
    extra_params: bytes = msgspec.field(name="beside", default=b"")
    #: What the gateway needs to run the call without its client. Opaque here, and never shown.
    envelope: bytes = msgspec.field(name="along", default=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """How a tool was classified when the call was held, as plain words."""

    category: str = "Other"
    risk: str = "Medium"
    severity: str = "medium"
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Who may approve, how many must, and for how long."""

    #: Names of the approvers. Empty means nobody: such a call can only be denied by expiry.
    approvers: frozenset[str]
    needed: int = 1
    #: Seconds from the hold until it expires unanswered.
    expire_after: float = 900.0
    #: Seconds an approval (and later its outcome) waits to be used.
    approved_for: float = 600.0
    #: Seconds for which a denial also answers the same call asked again; 0 for not at all.
    denied_for: float = 600.0
    requester_may_approve: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One approver's answer."""

    approver: str
    answer: Decision
    reason: str = ""
    at: float
    #: Where it was given: slack, inbox, api, cli.
    via: str


class _ToolResult(msgspec.Struct):
    is_error: Any = msgspec.field(name="isError", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The server's answer to a call that was sent: its own result or error, as JSON bytes."""

    #: True when `body` is the JSON of a JSON-RPC `error`, else it is that of a `result`.
    is_error: bool
    body: bytes

    @property
    def failed(self) -> bool:
        """Whether the server reported a failure: a JSON-RPC error, or a tool result with `isError` (MCP, tools, "Error Handling")."""
        return self.is_error or bool(msgspec.json.decode(self.body, type=_ToolResult).is_error)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCall:
    """The durable row of a call that waits for people."""

    id: CallId
    #: Counts changes; a swap succeeds only against the version it read.
    version: int = 1
    state: State = State.PENDING
    call: ToolCall
    terms: Terms
    classification: Classification
    #: The rule that asked for approval, and the reason its author gave.
    rule: str
    reason: str = ""
    #: Hash of the policy, and of the tool's definition, that the hold was made under.
    policy_revision: str = ""
    definition: str = ""
    #: The identity of its server (see `gateway.identity`), and where that server is, in one line without secrets.
    identity: str = ""
    address: str = ""
    #: How the tool's definition differs from the one that was accepted, as lines; "" when it does not.
    changes: str = ""
    #: What makes two calls the same: see `digest.key`.
    key: str
    #: SHA-256 of what a person is shown; a review must name it.
    digest: str
    created_at: float
    expires_at: float
    #: When the call left `pending`; for an approval the time the last one came.
    decided_at: float | None = None
    #: When the call came to its end.
    settled_at: float | None = None
    reviews: tuple[Review, ...] = ()
    #: Names of the approvers who have looked at the values that are hidden as secrets.
    revealed: tuple[str, ...] = ()
    outcome: Outcome | None = None
    #: Why it ended, when no person and no server said so.
    note: str = ""
    #: Whether somebody on the agent's side waits for the answer right now.
    attended: bool = True
    #: Whether the agent has been given the final answer.
    collected: bool = False
    #: When its last byte was written, and the session that it was written to; "" for a task, which is polled.
    collected_at: float | None = None
    collected_by: str = ""
    #: Whether the outcome was given a second time, in case the first was lost on the way.
    repeated: bool = False
    #: Whether the agent holds a task handle: then the call runs as soon as it is approved.
    task: bool = False
    #: The call that this one continues under the same approval, and the key of the one that continues this.
    continues: CallId | None = None
    continued: str = ""
    #: The last finished call with the same key, when there is one.
    twin: CallId | None = None
    twin_at: float | None = None

    @property
    def approvals(self) -> int:
        """How many different people have approved so far."""
        return len({review.approver for review in self.reviews if review.answer is Decision.APPROVE})

    @property
    def enough(self) -> bool:
        """Whether as many people have approved as must."""
        return self.approvals >= self.terms.needed

    @property
    def failed(self) -> bool:
        """Whether the server reported a failure."""
        return self.outcome is not None and self.outcome.failed

    @property
    def denial(self) -> Review | None:
        """The review that denied it, if one did."""
        return next((review for review in self.reviews if review.answer is Decision.DENY), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approver:
    """A person who may review; known by name, Slack id, inbox login and token."""

    name: str
    email: str | None = None
    slack: str | None = None
    token_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One posted message on a channel and the version of the call that it shows."""

    call: CallId
    channel: str
    #: The channel's own reference to the message; None until it is posted.
    ref: str | None = None
    shown_version: int = 0
    #: How often in a row posting failed, and when to try again.
    failures: int = 0
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimit:
    """The most calls, or bytes of calls, that there may be: of one agent, or of all ("")."""

    #: The states that count; () counts every state.
    states: Sequence[State]
    most: int
    agent: str = ""
    #: Whether bytes are counted (`summaries.size`), instead of calls.
    in_bytes: bool = False
    #: Only calls that were asked for later than this count.
    since: float = 0.0
    #: What is raised when it is reached.
    error: type[TooMany] = TooMany


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The definition of a tool that was accepted: the first that was seen, or the one that a person looked at."""

    server: str
    tool: str
    hash: str
    #: The definition as JSON.
    definition: bytes
    #: The identity of the server that gave it; "" when it was kept before servers had one.
    identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSession:
    """A session that an agent opened with a server: whose it is, and how it was opened (opaque here)."""

    server: str
    id: str
    agent: str
    opening: bytes
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One line of the audit trail. `seq`, `prev` and `hash` are given by the store when it commits."""

    at: float
    #: A dotted word: call.allowed, call.denied, hold.pending, hold.review, hold.approved, hold.forwarding ...
    kind: str
    #: Who did it: an agent, an approver, or `okayed`.
    actor: str
    call: str | None = None
    agent: str = ""
    server: str = ""
    tool: str = ""
    #: More facts, as a JSON object. Never argument values.
    detail: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0
    prev: str = ""
    hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSession:
    """A person's login to the inbox; only the hash of its secret is kept."""

    id_sha256: str
    approver: str
    created_at: float
    expires_at: float
