"""The values of this package: tool call, terms, held call, review, approver, notice, audit event (PURE).

All are immutable; a change is a new value made with `msgspec.structs.replace`. Times are epoch seconds (UTC).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NewType

import msgspec

from approvals.errors import QuotaExceeded

CallId = NewType("CallId", str)
"""The id of a held call: `hold_` and a lower-case ULID; `hp_` and a ULID if an earlier version made it."""
CALL_ID_PREFIXES = ("hold_", "hp_")


class State(StrEnum):
    """The state of a held call; `lifecycle.TRANSITIONS` has the transitions."""

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
    """An approver's answer."""

    APPROVE = "approve"
    DENY = "deny"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One MCP `tools/call`, immutable: the gateway judges, shows and sends this value.

    A change is a new value made with `msgspec.structs.replace`. A store holds it as sealed JSON, so the stored names of
    its fields cannot change: see `name=`.
    """

    agent: str
    #: The person who owns the agent; None when the config names none.
    owner: str | None = None
    #: The agent's session, or the agent where the protocol has none. For display and limits, never for access.
    session: str = ""
    server: str
    tool: str
    #: The exact bytes of the JSON object as received.
    arguments: bytes
    #: The other params that reach the server, as a JSON object; b"" for none. Shown and approved with the arguments.
    extra_params: bytes = msgspec.field(name="beside", default=b"")
    #: The data that the gateway needs to run the call without its client. Opaque here, and never shown.
    envelope: bytes = msgspec.field(name="along", default=b"")


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """How a tool was classified when the call was held."""

    category: str = "Other"
    risk: str = "Medium"
    severity: str = "medium"
    evidence: tuple[str, ...] = ()


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Who may approve, how many must, and for how long."""

    #: Names of the approvers. When empty, the call can only expire.
    approvers: frozenset[str]
    needed: int = 1
    #: Seconds from the hold until it expires unanswered.
    expire_after: float = 900.0
    #: Seconds for which an approval, and later its outcome, can be used.
    approved_for: float = 600.0
    #: Seconds for which a denial also answers repeated calls; 0 to ask again at once.
    denied_for: float = 600.0
    requester_may_approve: bool = False


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """An approver's answer to one call."""

    approver: str
    answer: Decision
    reason: str = ""
    at: float
    #: The channel of the answer: slack, inbox, api, cli.
    via: str


class _ToolResult(msgspec.Struct):
    is_error: Any = msgspec.field(name="isError", default=False)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The server's answer to a call that was sent: its own result or error, as JSON bytes."""

    #: Whether `body` is the JSON of a JSON-RPC `error`; otherwise it is a `result`.
    is_error: bool
    body: bytes

    @property
    def failed(self) -> bool:
        """Whether the server reported a failure: a JSON-RPC error, or a tool result with `isError` (MCP, tools, "Error Handling")."""
        return self.is_error or bool(msgspec.json.decode(self.body, type=_ToolResult).is_error)


class HeldCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was held for approval, as it is stored."""

    id: CallId
    #: Incremented with each change; a swap succeeds only if the stored version is the one that was read.
    version: int = 1
    state: State = State.PENDING
    call: ToolCall
    terms: Terms
    classification: Classification
    #: The rule that required approval, and its reason.
    rule: str
    reason: str = ""
    #: Hashes of the policy, and of the tool's definition, at the time of the hold.
    policy_revision: str = ""
    definition: str = ""
    #: The identity of its server (see `gateway.config.server_identity`), and its address in one line without secrets.
    identity: str = ""
    address: str = ""
    #: A diff between the accepted definition of the tool and the current one; "" when they are equal.
    changes: str = ""
    #: Equal for repeated calls: see `digest.key`.
    key: str
    #: SHA-256 of everything a person sees; an approval must name it.
    digest: str
    created_at: float
    expires_at: float
    #: When the call left `pending`; for an approved call, the time of the last approval.
    decided_at: float | None = None
    #: When the call reached a settled state.
    settled_at: float | None = None
    reviews: tuple[Review, ...] = ()
    #: Names of the approvers who revealed the values hidden as secrets.
    revealed: tuple[str, ...] = ()
    #: The replica that claimed the call; "" for a call that was not claimed.
    runner: str = ""
    outcome: Outcome | None = None
    #: Why it ended, unless a review or the outcome says so.
    note: str = ""
    #: Whether the agent has received the final answer.
    collected: bool = False
    #: When the answer was fully written, and to which session; "" for a task, which is polled.
    collected_at: float | None = None
    collected_by: str = ""
    #: Whether the outcome was sent a second time, in case the first was lost.
    repeated: bool = False
    #: Whether the agent holds a task handle, so that the call runs as soon as it is approved.
    task: bool = False
    #: The call that this call continues under the same approval, and the key of the call that continues this one.
    continues: CallId | None = None
    continued: str = ""
    #: The previous call with the same key, and when it was settled.
    twin: CallId | None = None
    twin_at: float | None = None

    @property
    def approvals(self) -> int:
        """The number of different people who have approved so far."""
        return len({review.approver for review in self.reviews if review.answer is Decision.APPROVE})

    @property
    def enough(self) -> bool:
        """Whether enough people have approved."""
        return self.approvals >= self.terms.needed

    @property
    def failed(self) -> bool:
        """Whether the server reported a failure."""
        return self.outcome is not None and self.outcome.failed

    @property
    def denial(self) -> Review | None:
        """The review that denied the call, or None."""
        return next((review for review in self.reviews if review.answer is Decision.DENY), None)


class Approver(msgspec.Struct, frozen=True, kw_only=True):
    """A person who may review, known by name, e-mail address, Slack member id and token."""

    name: str
    email: str | None = None
    slack: str | None = None
    token_sha256: str | None = None


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A message on a channel, the version of the call that it shows, and whether it shows a waiting client."""

    call: CallId
    channel: str
    #: The channel's own reference to the message; None until it is posted.
    ref: str | None = None
    shown_version: int = 0
    #: None until it is posted, and for a message of an earlier version of Okayed.
    shown_attended: bool | None = None
    #: The number of failures in a row, and when to try again.
    failures: int = 0
    retry_at: float = 0.0


class CallLimit(msgspec.Struct, frozen=True, kw_only=True):
    """The most open calls, or bytes of them, of one agent or of all agents ("")."""

    most: int
    agent: str = ""
    #: Whether bytes are counted (`summaries.size`), instead of calls.
    in_bytes: bool = False
    #: Count the calls of an agent that were created after this time, also those that have ended; 0: the open calls.
    since: float = 0.0
    #: Raised when the limit is exceeded.
    error: type[QuotaExceeded] = QuotaExceeded

    def __post_init__(self) -> None:
        """Raise `ValueError` for a start time without an agent: no index answers that."""
        if self.since and not self.agent:
            raise ValueError("A limit with a start time needs an agent.")


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """The accepted definition of a tool: the first one seen, or the one that a person accepted."""

    server: str
    tool: str
    hash: str
    #: The definition as JSON.
    definition: bytes
    #: The identity of its server; "" when an older version stored it without one.
    identity: str = ""


class AgentSession(msgspec.Struct, frozen=True, kw_only=True):
    """An MCP session of an agent with a server; `opening` is its initialize request (opaque here)."""

    server: str
    id: str
    agent: str
    opening: bytes
    at: float


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the audit trail. The store sets `seq`, `prev` and `hash` when it commits."""

    at: float
    #: A dotted identifier: call.allowed, call.denied, hold.pending, hold.review, hold.approved, hold.forwarding ...
    kind: str
    #: The agent or approver who caused it, or `okayed`.
    actor: str
    call: str | None = None
    agent: str = ""
    server: str = ""
    tool: str = ""
    #: Details, as a JSON object. Never argument values.
    detail: Mapping[str, Any] = {}
    seq: int = 0
    prev: str = ""
    hash: str = ""


class LoginSession(msgspec.Struct, frozen=True, kw_only=True):
    """A person's login to the inbox; only the hash of its secret is stored."""

    id_sha256: str
    approver: str
    created_at: float
    expires_at: float
    #: When the person was last active.
    seen_at: float


class OneTimeCode(msgspec.Struct, frozen=True, kw_only=True):
    """A code that signs an approver in once; only its hash is stored."""

    id_sha256: str
    approver: str
    created_at: float
    expires_at: float
