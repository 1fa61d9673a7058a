"""A store in memory, for tests and the demo: the same guarantees, except that nothing survives the process."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import count, dropwhile, islice
from math import inf
from secrets import token_bytes
from typing import Any, Unpack

from msgspec.structs import replace

from approvals import audit
from approvals.audit import Checkpoint
from approvals.errors import Conflict
from approvals.lifecycle import OPEN, OPEN_OR_IN_DOUBT, TIMED, last_changed_at
from approvals.model import (
    AgentSession,
    AuditEvent,
    CallId,
    CallLimit,
    HeldCall,
    Notice,
    Pin,
    State,
)
from approvals.signals import Signal, SignalKind
from approvals.store import SESSION_LIFE, StartCounts
from approvals.store.call_lists import MAX_SEARCHED, CallFilter, Page, split_filter
from approvals.store.event_pages import EventFilter, EventPage, build_page, find_page_end
from approvals.store.memory.logins import MemoryLogins
from approvals.store.memory.replicas import MemoryReplicas
from approvals.summaries import Summary, limit_size, size, summarize


class MemoryStore(MemoryLogins, MemoryReplicas):
    """See `approvals.store.Store`. Each method is one step of the event loop, and so atomic."""

    def __init__(self, *, chain_key: bytes = b"") -> None:
        super().__init__()
        self._calls: dict[CallId, HeldCall] = {}
        self._events: list[AuditEvent] = []
        self._notices: dict[tuple[CallId, str], Notice] = {}
        self._pins: dict[tuple[str, str], Pin] = {}
        self._sessions: dict[tuple[str, str], AgentSession] = {}
        self._secrets: dict[str, bytes] = {}
        self._hits: list[tuple[float, int, str, float, float]] = []
        self._number = count()
        self._highest_time = 0.0
        self._chain_key = chain_key

    async def add(self, call: HeldCall, *events: AuditEvent, limits: Sequence[CallLimit] = ()) -> None:
        if call.id in self._calls or any(
            other.state in OPEN_OR_IN_DOUBT and other.key == call.key for other in self._calls.values()
        ):
            raise Conflict
        if reached := next((limit for limit in limits if self._is_exceeded(limit, call)), None):
            raise reached.error
        self._put(call, events)

    async def swap(self, old: HeldCall, new: HeldCall, *events: AuditEvent) -> None:
        stored = self._calls.get(old.id)
        if stored is None or stored.version != old.version:
            raise Conflict
        self._put(new, events)

    def _put(self, call: HeldCall, events: Sequence[AuditEvent]) -> None:
        self.post(*events)
        self._calls[call.id] = call
        self.keep_time(last_changed_at(call))
        self._feed.publish(Signal(SignalKind.CALL, call.id))

    async def get(self, call_id: CallId) -> HeldCall | None:
        return self._calls.get(call_id)

    async def version(self, call_id: CallId) -> int | None:
        call = self._calls.get(call_id)
        return None if call is None else call.version

    async def find(self, key: str) -> HeldCall | None:
        return next((call for call in reversed(self._calls.values()) if call.key == key), None)

    async def select(
        self,
        states: Sequence[State] = (),
        *,
        limit: int = 200,
        room: float = inf,
        **matching: Unpack[CallFilter],
    ) -> Page[HeldCall]:
        page = self._page(states, limit, matching)
        taken = list(limit_size(((call, _length(call)) for call in page.items), room))
        return Page(taken, taken[-1].id if len(taken) < len(page.items) else page.next)

    async def summaries(
        self, states: Sequence[State] = (), *, limit: int = 200, **matching: Unpack[CallFilter]
    ) -> Page[Summary]:
        page = self._page(states, limit, matching)
        return Page(list(map(summarize, page.items)), page.next)

    def _page(self, states: Sequence[State], limit: int, matching: CallFilter) -> Page[HeldCall]:
        index_filters, row_filters = split_filter(states, matching)
        found: list[HeldCall] = []
        last: CallId | None = None
        for n, call in enumerate(self._scan(states, index_filters)):
            if row_filters and n == MAX_SEARCHED:
                return Page(found, last)
            if _matches(call, row_filters):
                if len(found) == limit:
                    return Page(found, found[-1].id)
                found.append(call)
            last = call.id
        return Page(found, None)

    def _scan(self, states: Sequence[State], index_filters: Mapping[str, Any]) -> Iterator[HeldCall]:
        older = self._older(index_filters.get("before"))
        return (
            call for call in older if (not states or call.state in states) and _matches(call, index_filters)
        )

    def _older(self, before: CallId | None) -> Iterator[HeldCall]:
        """Yield the calls that were added before the given one (None: every call), newest first."""
        newest_first = reversed(self._calls.values())
        if before is None:
            return newest_first
        return islice(dropwhile(lambda call: call.id != before, newest_first), 1, None)

    def _is_exceeded(self, limit: CallLimit, new: HeldCall) -> bool:
        limited = [call for call in self._calls.values() if _applies(limit, call)]
        return sum(size(call) if limit.in_bytes else 1 for call in (*limited, new)) > limit.most

    async def due(self, now: float) -> Sequence[CallId]:
        overdue = [call for call in self._calls.values() if call.state in TIMED and call.expires_at <= now]
        return [call.id for call in sorted(overdue, key=lambda call: call.expires_at)]

    async def open_counts(self) -> Mapping[State, int]:
        found = Counter(call.state for call in self._calls.values())
        return {state: found[state] for state in OPEN_OR_IN_DOUBT}

    async def open_tasks(self) -> Sequence[CallId]:
        return [call.id for call in self._calls.values() if call.task and call.state in OPEN]

    async def open_summaries(self, *, server: str = "", tool: str = "") -> Sequence[Summary]:
        _, row_filters = split_filter(OPEN, {"server": server, "tool": tool})
        return [summarize(call) for call in self._scan(OPEN, {}) if _matches(call, row_filters)]

    async def append(self, *events: AuditEvent) -> None:
        self.post(*events)

    def post(self, *events: AuditEvent) -> None:
        for entry in tuple(map(audit.encode_event, events)):  # every event can be encoded, or none is added
            self.post_entry(entry)

    def post_entry(self, entry: audit.EncodedEvent) -> None:
        prev = self._events[-1].hash if self._events else ""
        row = entry.to_row(len(self._events) + 1, prev, self._chain_key)
        self._events.append(audit.from_row(row))

    async def events(self, *, after: int = 0, limit: int = 1000, call: str = "") -> Sequence[AuditEvent]:
        return list(islice((event for event in self._events[after:] if call in ("", event.call)), limit))

    async def search_events(
        self, *, after: int = 0, limit: int = 1000, **matching: Unpack[EventFilter]
    ) -> EventPage:
        since, last = matching.get("since", 0.0), len(self._events)
        start = next((event.seq - 1 for event in self._events[after:] if event.at >= since), max(after, last))
        end = find_page_end(start, last, matching)
        found = (event for event in self._events[start:end] if _is_wanted(event, matching))
        return build_page(list(islice(found, limit)), limit, end, last)

    async def secret(self, name: str) -> bytes:
        return self._secrets.setdefault(name, token_bytes(32))

    def save_pin(self, pin: Pin) -> None:
        self._pins[pin.server, pin.tool] = pin
        self._feed.publish(Signal(SignalKind.PIN, pin.server))

    async def pins(self) -> Sequence[Pin]:
        return list(self._pins.values())

    async def save_session(self, session: AgentSession) -> None:
        # The dict is in the order in which sessions were opened.
        while self._sessions and next(iter(self._sessions.values())).at <= session.at - SESSION_LIFE:
            del self._sessions[next(iter(self._sessions))]
        self._sessions.pop((session.server, session.id), None)
        self._sessions[session.server, session.id] = session

    async def find_session(self, server: str, session_id: str) -> AgentSession | None:
        return self._sessions.get((server, session_id))

    def delete_session(self, server: str, session_id: str) -> None:
        self._sessions.pop((server, session_id), None)

    async def stale_calls(self, channel: str, now: float) -> Sequence[tuple[Summary, Notice | None]]:
        pairs = ((call, self._notices.get((call.id, channel))) for call in self._calls.values())
        return [(summarize(call), notice) for call, notice in pairs if _is_stale(call, notice, now)]

    async def notices_with_stale_presence(self, channel: str, now: float) -> Sequence[Notice]:
        pending = [call.id for call in self._calls.values() if call.state is State.PENDING]
        attended = await self.find_attended(pending, now)
        posted = [
            notice for call_id in pending if (notice := self._notices.get((call_id, channel))) and notice.ref
        ]
        return [
            notice
            for notice in posted
            if notice.shown_attended is not (notice.call in attended) and notice.retry_at <= now
        ]

    async def save_notice(self, notice: Notice) -> None:
        self._notices[notice.call, notice.channel] = notice

    def add_hit(self, key: str, at: float, until: float, amount: float = 1) -> None:
        while self._hits and self._hits[0][0] <= at:
            heappop(self._hits)
        heappush(self._hits, (until, next(self._number), key, at, amount))

    async def hits(self, now: float) -> Sequence[tuple[str, float, float]]:
        current = sorted(
            (at, number, key, amount) for until, number, key, at, amount in self._hits if until > now
        )
        return [(key, at, amount) for at, _, key, amount in current]

    async def highest_time(self) -> float:
        return self._highest_time

    def keep_time(self, at: float) -> None:
        self._highest_time = max(self._highest_time, at)

    async def reset_time(self, at: float, *events: AuditEvent) -> None:
        self.post(*events)
        self._highest_time = at
        self._hits = [
            (at + until - used, number, key, at, amount) if used > at else (until, number, key, used, amount)
            for until, number, key, used, amount in self._hits
        ]
        heapify(self._hits)
        self._reset_logins(at)
        self._notices = {
            place: replace(notice, retry_at=min(notice.retry_at, at))
            for place, notice in self._notices.items()
        }

    async def start_counts(self) -> StartCounts:
        return StartCounts(0)

    async def count_start(self) -> int:
        return 1

    def mark_restored(self) -> None:
        """Do nothing: this store ends with its process."""

    async def head(self) -> Checkpoint | None:
        return Checkpoint(self._events[-1].seq, self._events[-1].hash) if self._events else None

    async def check(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        self._feed.close()


def _matches(call: HeldCall, given: Mapping[str, Any]) -> bool:
    """Return whether a call matches the given filters, except `before`."""
    request = call.call
    return (
        given.get("agent", request.agent) == request.agent
        and given.get("tool", request.tool) == request.tool
        and given.get("server", request.server) == request.server
        and any(given.get("text", "") in field for field in (request.tool, request.agent, call.id))
    )


def _is_wanted(event: AuditEvent, matching: EventFilter) -> bool:
    return (
        event.at >= matching.get("since", 0.0)
        and matching.get("tool") in (None, "", event.tool)
        and matching.get("agent") in (None, "", event.agent)
        and matching.get("call") in (None, "", event.call)
    )


def _applies(limit: CallLimit, call: HeldCall) -> bool:
    """Return whether a limit applies to this call."""
    in_time = call.created_at > limit.since if limit.since else call.state in OPEN
    return in_time and limit.agent in ("", call.call.agent)


def _length(call: HeldCall) -> int:
    return size(call) + (len(call.outcome.body) if call.outcome else 0)


def _is_stale(call: HeldCall, notice: Notice | None, now: float) -> bool:
    if call.state not in OPEN_OR_IN_DOUBT and (notice is None or notice.ref is None):
        return False
    return notice is None or (notice.shown_version < call.version and notice.retry_at <= now)
