"""The interface of a store: one protocol for each kind of user.

A store saves and swaps values; it contains no rules. Every change of a held call goes through `swap`. It writes the
new value *if the call is still the version that was read*, together with its audit events, in one commit, and returns
after that commit is durable. A read sees every write that its process requested before it. Every method raises
`StoreError` when the store cannot be used.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol, Unpack

from approvals.audit import Checkpoint, EncodedEvent
from approvals.model import (
    AgentSession,
    AuditEvent,
    CallId,
    CallLimit,
    HeldCall,
    LoginSession,
    Notice,
    OneTimeCode,
    Pin,
    State,
)
from approvals.signals import Signal
from approvals.store.call_lists import CallFilter, Page
from approvals.store.event_pages import EventFilter, EventPage
from approvals.summaries import Summary

#: Seconds for which an agent's session is kept.
SESSION_LIFE = 30 * 86400.0
#: Seconds for which the ended lease of a replica is kept.
ENDED_LEASE_LIFE = 3600.0


@dataclass(frozen=True, slots=True)
class StartCounts:
    """How many times a gateway was started with a store: the store's own count, and the one in its `.lock` file."""

    store: int
    #: `7`; `7 8` while the eighth start is being counted; "" without a note; any other word matches no count.
    noted: str = ""

    @property
    def agree(self) -> bool:
        """Whether the counts agree. They differ when the store is an older copy."""
        return str(self.store) in (self.noted or "0").split()

    @property
    def next(self) -> int:
        """The number of the next start, higher than both counts."""
        return 1 + max(self.store, *(int(word) for word in self.noted.split() if word.isdecimal()), 0)


class CallStore(Protocol):
    """Held calls."""

    async def add(self, call: HeldCall, *events: AuditEvent, limits: Sequence[CallLimit] = ()) -> None:
        """Insert a new held call with its events.

        Raises `Conflict` when the id, or an open call with the same key, exists. Raises the error of the first limit that
        the call would exceed. Limits are checked in the same commit, so a burst cannot pass them.
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
        room: float = inf,
        **matching: Unpack[CallFilter],
    ) -> Page[HeldCall]:
        """Return a page of the matching calls in any of *states* (none given: in all), newest first.

        A page has at most *limit* calls (at least 1). It has the first match, and more while their total size is at most
        *room* bytes. A page looks at no more than `call_lists.MAX_SEARCHED` calls; following `next` finds every match.
        """

    async def summaries(
        self, states: Sequence[State] = (), *, limit: int = 200, **matching: Unpack[CallFilter]
    ) -> Page[Summary]:
        """Return a page of the summaries of the matching calls, in the order of `select`."""

    async def due(self, now: float) -> Sequence[CallId]:
        """Return the ids of pending and approved calls whose `expires_at` is at or before *now*, by deadline."""

    async def open_counts(self) -> Mapping[State, int]:
        """Return the number of calls that are pending, approved, forwarding and in doubt."""

    async def open_tasks(self) -> Sequence[CallId]:
        """Return the ids of the open calls with a task handle, oldest first."""

    async def open_summaries(self, *, server: str = "", tool: str = "") -> Sequence[Summary]:
        """Return the summaries of the open calls (of a server or tool), newest first; "" matches every name."""

    async def swap(self, old: HeldCall, new: HeldCall, *events: AuditEvent) -> None:
        """Replace *old* with *new* and add *events* in one commit; `Conflict` when *old* is not the stored version."""


class SignalStore(Protocol):
    """The signals of all replicas that share the store."""

    def signals(self) -> AsyncIterator[Signal]:
        """Start listening now; yield every signal until the store closes.

        The commit of a changed call, of changed presence, of an accepted tool definition or of a sign-out is followed by
        its signal. A listener that is too slow gets RESYNC in place of the signals that wait for it.
        """

    def announce(self, signal: Signal) -> None:
        """Send a signal that belongs to no commit, without waiting; its sender gets it too."""


class TrailReader(Protocol):
    """The audit trail, read-only."""

    async def events(self, *, after: int = 0, limit: int = 1000, call: str = "") -> Sequence[AuditEvent]:
        """Return the audit events (of a call) with `seq` > *after*, in order of `seq`."""

    async def search_events(
        self, *, after: int = 0, limit: int = 1000, **matching: Unpack[EventFilter]
    ) -> EventPage:
        """Return a page of the matching audit events with `seq` > *after*, in order of `seq`.

        It looks at no more than `event_pages.MAX_SEARCHED` events; following `next` finds every match.
        """

    async def head(self) -> Checkpoint | None:
        """Return the last event as a checkpoint, or None for an empty trail."""


class TrailStore(TrailReader, Protocol):
    """The audit trail."""

    async def append(self, *events: AuditEvent) -> None:
        """Add events and wait until they are durable."""

    def post(self, *events: AuditEvent) -> None:
        """Add events with the next commit, without waiting."""

    def post_entry(self, entry: EncodedEvent) -> None:
        """Add an encoded event (see `EventTemplate`) with one of the next commits, without waiting."""


class NoticeStore(Protocol):
    """The version of each held call that each channel shows."""

    async def stale_calls(self, channel: str, now: float) -> Sequence[tuple[Summary, Notice | None]]:
        """Return the calls whose newest version *channel* does not show yet, unless their retry time is in the future.

        Calls that were settled before the channel posted them are left out.
        """

    async def notices_with_stale_presence(self, channel: str, now: float) -> Sequence[Notice]:
        """Return the posted notices of pending calls that do not show the presence at *now*.

        Those whose retry time is in the future are left out.
        """

    async def save_notice(self, notice: Notice) -> None:
        """Insert or replace the notice of (call, channel)."""


class PinReader(Protocol):
    """The accepted tool definitions, read-only."""

    async def pins(self) -> Sequence[Pin]:
        """Return every pin."""


class TimeStore(Protocol):
    """The highest time so far, which the clock continues from after a restart."""

    async def highest_time(self) -> float:
        """Return the highest time kept by `keep_time` or with a change of a call; 0.0 for a new store."""

    def keep_time(self, at: float) -> None:
        """Keep *at* if it is the highest time so far, without waiting."""

    async def reset_time(self, at: float, *events: AuditEvent) -> None:
        """Lower the highest time to *at*, move later dates back to it, and add *events* in the same commit."""


class ReplicaStore(Protocol):
    """The replicas that share the store, and everything that each of them holds while its lease lasts."""

    async def renew_replica(self, replica: str, now: float, until: float) -> frozenset[str]:
        """Extend the lease of a replica to *until* and return the locks that it holds; drop leases that ended long ago."""

    async def end_replica(self, replica: str) -> None:
        """End the lease of a replica; release its locks and remove its presence."""

    async def live_replicas(self, now: float) -> frozenset[str]:
        """Return the replicas whose lease ends after *now*."""

    async def acquire_lock(self, name: str, replica: str, now: float) -> bool:
        """Give a replica the lock *name*; return False if another replica, whose lease ends after *now*, holds it."""

    async def save_presence(self, replica: str, added: Sequence[CallId], removed: Sequence[CallId]) -> None:
        """Add calls to those for which clients of a replica wait, and remove others from them."""

    async def find_attended(self, calls: Sequence[CallId], now: float) -> frozenset[CallId]:
        """Return those of *calls* for which a client waits at a replica whose lease ends after *now*."""


class LoginStore(Protocol):
    """Logins to the inbox, and the one-time codes that start them."""

    async def save_login(self, session: LoginSession) -> None:
        """Keep a login session, and drop those that had expired when it was created."""

    async def find_login(self, id_sha256: str) -> LoginSession | None:
        """Return the login session, or None."""

    def record_activity(self, id_sha256: str, at: float) -> None:
        """Raise the login session's `seen_at` to *at*, without waiting."""

    async def delete_login(self, id_sha256: str) -> None:
        """Delete the login session, if it exists."""

    async def save_code(self, code: OneTimeCode) -> None:
        """Keep a one-time code, and drop those that had expired when it was created."""

    async def take_code(self, id_sha256: str) -> OneTimeCode | None:
        """Delete the one-time code and return it, even if it has expired; None if it does not exist.

        Of several callers only one gets the code.
        """


class StateStore(PinReader, TimeStore, LoginStore, Protocol):
    """The gateway's own state: pins, sessions, logins, secrets, rate-limit hits, the time, the number of starts."""

    def save_pin(self, pin: Pin) -> None:
        """Insert or replace the pin of (server, tool), without waiting."""

    async def save_session(self, session: AgentSession) -> None:
        """Keep an agent's session; those opened SESSION_LIFE before it may be dropped."""

    async def find_session(self, server: str, session_id: str) -> AgentSession | None:
        """Return the session with this id, or None."""

    def delete_session(self, server: str, session_id: str) -> None:
        """Delete a session that has ended, without waiting."""

    async def secret(self, name: str) -> bytes:
        """Return the 32 random bytes of this name; they are created on first use and kept."""

    def add_hit(self, key: str, at: float, until: float, amount: float = 1) -> None:
        """Add *amount* to a limit's window, without waiting; it may be dropped after *until*."""

    async def hits(self, now: float) -> Sequence[tuple[str, float, float]]:
        """Return the (key, at, amount) of every hit that has not ended by *now*, oldest first."""

    async def start_counts(self) -> StartCounts:
        """Return how many times a gateway was started with this store."""

    async def count_start(self) -> int:
        """Count a start, in the store and in its `.lock` file, and return its number.

        A crash half-way leaves counts that agree if they agreed before.
        """

    def mark_restored(self) -> None:
        """Note durably that the store was restored from a copy: the counts disagree until the next `count_start`."""


class ApprovalStore(CallStore, SignalStore, TrailStore, TimeStore, ReplicaStore, Protocol):
    """The part of a store that the approval service uses."""


class Store(CallStore, SignalStore, TrailStore, NoticeStore, ReplicaStore, StateStore, Protocol):
    """The complete store of a gateway."""

    async def check(self) -> None:
        """Raise `StoreError` when the store cannot commit now (readiness)."""

    async def close(self) -> None:
        """Write the posted events and release the file."""
