"""The seam to durability: what every store can do, and nothing of the rules.

A store keeps values and swaps them; it never decides. All changes of a held call go through `swap`, which
writes the new value *if nobody else changed the call since it was read*, together with its audit events, in
one commit, and returns only after that commit is durable.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from approvals.audit import Checkpoint
from approvals.model import AgentSession, AuditEvent, CallId, Cap, HeldCall, LoginSession, Notice, Pin, State
from approvals.summaries import Summary

#: The limit that leaves nothing out.
ALL = 2**63 - 1
#: Seconds for which an agent's session is kept.
SESSION_LIFE = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Starts:
    """How often gateways were started with a store, as the store says and as the note beside it says."""

    store: int
    #: `7`; `7 8` while the eighth start is counted; "" when there is no note; other words agree with nothing.
    noted: str = ""

    @property
    def agree(self) -> bool:
        """Whether the store is the one that the note was written for, and no copy of before."""
        return str(self.store) in (self.noted or "0").split()

    @property
    def next(self) -> int:
        """The number of the next start: higher than all that was counted."""
        return 1 + max(self.store, *(int(word) for word in self.noted.split() if word.isdecimal()), 0)


class Store(Protocol):
    """Durable held calls, notices, audit trail, login sessions and rate-limit hits."""

    async def add(self, call: HeldCall, *events: AuditEvent, caps: Sequence[Cap] = ()) -> None:
        """Insert a new held call with its events; `Conflict` when its id, or an open call of its key, exists.

        The refusal of a cap in *caps* that this call would exceed; they are looked at in the same commit, so no burst passes one.
        """

    async def get(self, call_id: CallId) -> HeldCall | None:
        """Return the call, or None."""

    async def version(self, call_id: CallId) -> int | None:
        """Return the version of the call, or None."""

    async def find(self, key: str) -> HeldCall | None:
        """Return the newest call with this key, whatever its state, or None."""

    async def select(
        self,
        states: Sequence[State] = (),
        *,
        limit: int = 200,
        before: CallId | None = None,
        tool: str = "",
        agent: str = "",
        server: str = "",
        text: str = "",
        room: float = inf,
    ) -> Sequence[HeldCall]:
        """Return calls newest first, narrowed by what is given; `text` is looked for in tool, agent and id.

        The first is always among them, the others as long as all of them have at most *room* bytes.
        """

    async def summaries(
        self,
        states: Sequence[State] = (),
        *,
        limit: int = ALL,
        before: CallId | None = None,
        tool: str = "",
        agent: str = "",
        server: str = "",
        text: str = "",
    ) -> Sequence[Summary]:
        """Return the summaries of calls, as `select` does the calls."""

    async def due(self, now: float) -> Sequence[Summary]:
        """Return the summaries of calls that are pending or approved and whose `expires_at` is at or before *now*."""

    async def swap(self, old: HeldCall, new: HeldCall, *events: AuditEvent) -> None:
        """Replace *old* by *new* and add *events* in one commit; `Conflict` when *old* is not the stored version."""

    async def append(self, *events: AuditEvent) -> None:
        """Add events to the audit trail and wait until they are durable."""

    def post(self, *events: AuditEvent) -> None:
        """Add events to the audit trail without waiting; they ride in the next commit."""

    async def events(
        self,
        *,
        after: int = 0,
        limit: int = 1000,
        since: float = 0.0,
        tool: str = "",
        agent: str = "",
        call: str = "",
    ) -> Sequence[AuditEvent]:
        """Return audit events with `seq` > *after* in order of `seq`, narrowed by what is given."""

    async def stale(self, channel: str, now: float) -> Sequence[tuple[Summary, Notice | None]]:
        """Return the summaries of calls whose newest version *channel* does not show yet and whose retry time has come.

        Calls that were settled before the channel ever posted them are left out.
        """

    async def shown(self, notice: Notice) -> None:
        """Insert or replace the notice of (call, channel)."""

    def hit(self, key: str, at: float, until: float, amount: float = 1) -> None:
        """Record one use of a limit that *amount* counts of, without waiting; it may be forgotten after *until*."""

    async def hits(self, now: float) -> Sequence[tuple[str, float, float]]:
        """Return the (key, at, amount) of every hit that is still to be counted, oldest first."""

    async def mark(self) -> float:
        """Return the highest time that was kept, by `reached` or with a change of a call; 0.0 when there is none."""

    def reached(self, at: float) -> None:
        """Keep the time *at* when it is the highest so far, without waiting."""

    async def reset_time(self, at: float, *events: AuditEvent) -> None:
        """Lower the highest time to *at*, with what is dated later, and add *events* in the same commit."""

    async def starts(self) -> Starts:
        """Return how often a gateway was started with this store."""

    async def begin(self) -> int:
        """Count a start, in the store and beside it, and return its number; raises `StoreError`.

        A crash half-way leaves counts that agree, when they agreed before.
        """

    def distrust(self) -> None:
        """Note durably that the store is a copy that was put back: no counts agree until the next `begin`."""

    async def head(self) -> Checkpoint | None:
        """Return the last event of the audit trail as a checkpoint, None when there is none."""

    async def login(self, session: LoginSession) -> None:
        """Keep a login session."""

    async def logged_in(self, id_sha256: str) -> LoginSession | None:
        """Return the login session, or None."""

    async def logout(self, id_sha256: str) -> None:
        """Forget the login session, if there is one."""

    async def secret(self, name: str) -> bytes:
        """Return 32 random bytes that are made when this name is first asked for, and stay."""

    def pin(self, pin: Pin) -> None:
        """Keep the pin of (server, tool) in place of any other, without waiting."""

    async def pins(self) -> Sequence[Pin]:
        """Return every pin."""

    async def remember(self, session: AgentSession) -> None:
        """Keep an agent's session; those that were opened SESSION_LIFE before it may be forgotten."""

    async def recall(self, server: str, session_id: str) -> AgentSession | None:
        """Return the session of this id, or None."""

    def forget(self, server: str, session_id: str) -> None:
        """Forget a session that has ended, without waiting."""

    def changes(self) -> AsyncIterator[CallId]:
        """Yield the id of each held call after the commit that changed it; every listener gets every id."""

    async def check(self) -> None:
        """Raise `StoreError` when the store cannot commit now (readiness)."""

    async def close(self) -> None:
        """Finish what was posted and let go of the file."""
