"""Tracks the requests that wait for held calls, and ends the wait of a client that gave up.

SDK clients cancel at their timeout, and most keep the connection. Others send nothing and repeat the call. If such a
wait did not end, an approved call would run for a client that no longer reads, and the answer would be lost.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Self, TypeVar

import msgspec

from approvals.model import CallId
from gateway.hold.event_buffer import EventBuffer
from gateway.hold.patience import MIN_WAIT
from gateway.wire import frames

Key = TypeVar("Key")

#: The most ended requests in memory.
MAX_ENDED = 10_000
#: The most requests that wait for one call: each may keep a copy of a large call in memory.
MAX_WAITS_PER_CALL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """Identifies a request: its id is unique only within its client's session."""

    agent: str
    server: str
    session: str
    id: frames.Id

    def encode(self) -> str:
        """Return the key as JSON in ASCII: the subject of a signal."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, subject: str) -> Self:
        """Decode the subject of a signal; raises `ValueError`."""
        return msgspec.convert(json.loads(subject), cls)


@dataclass(slots=True, eq=False, kw_only=True)
class PendingWait:
    """One request that waits for a held call."""

    call_id: CallId
    #: The client's own `clientInfo` name.
    client: str = ""
    #: When it began to wait.
    since: float = 0.0
    cancelled: bool = False
    #: Whether a newer request for the call replaced it.
    superseded: bool = False
    #: The server's notifications while the call runs for this request; None while it does not run.
    events: EventBuffer | None = field(default=None, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether the client no longer reads the response to this request."""
        return self.cancelled or self.superseded

    def stop_events(self) -> None:
        """End the stream of notifications. The run continues."""
        if self.events is not None:
            self.events.put(None)

    def supersede(self) -> None:
        """End the wait: a newer request replaces it."""
        self.superseded = True
        self.stop_events()


class Cancellations:
    """The requests that wait for held calls, and how their waits end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Tuples, since most requests and calls have one wait.
        self._waits: dict[RequestKey, tuple[PendingWait, ...]] = {}
        self._by_call: dict[CallId, tuple[PendingWait, ...]] = {}
        #: For each call and client: the seconds that the last request waited until the client ended it.
        self._ended: OrderedDict[tuple[CallId, str], float] = OrderedDict()
        #: Whether the gateway stops, so that all waits are over.
        self.closed = False
        #: The tasks of clients that resume their streams at the next gateway process. Their streams end last.
        self.lingering: set[asyncio.Task[Any] | None] = set()
        self._lingering_over = asyncio.Event()

    async def linger(self) -> None:
        """Keep a stream open until `end_lingering`: its client reconnects as soon as the stream ends."""
        task = asyncio.current_task()
        self.lingering.add(task)
        try:
            await self._lingering_over.wait()
        finally:
            self.lingering.discard(task)

    def end_lingering(self) -> None:
        """End the lingering streams."""
        self._lingering_over.set()

    def add(self, key: RequestKey, wait: PendingWait) -> None:
        """Track a wait until `remove`."""
        self._waits[key] = (*self._waits.get(key, ()), wait)
        self._by_call[wait.call_id] = (*self._by_call.get(wait.call_id, ()), wait)
        self._ended.pop((wait.call_id, wait.client), None)

    def remove(self, key: RequestKey, wait: PendingWait, *, answered: bool) -> None:
        """Forget a wait. If its client ended it before it was *answered*, remember how long it lasted."""
        _remove_wait(self._waits, key, wait)
        _remove_wait(self._by_call, wait.call_id, wait)
        if (wait.cancelled or not answered) and not wait.superseded:
            self._record_ended(wait)

    def cancel(self, key: RequestKey) -> tuple[CallId, ...]:
        """End the waits of a request; returns the calls that it waited for.

        Without sessions, two clients of an agent may use the same id. Then both waits end, and the other client repeats
        its call.
        """
        ended = self._waits.get(key, ())
        for wait in ended:
            wait.cancelled = True
            wait.stop_events()
        return tuple(wait.call_id for wait in ended)

    def open_waits(self, call_id: CallId, client: str) -> tuple[PendingWait, ...]:
        """Return the open waits for a call by clients of this name."""
        return tuple(
            wait for wait in self._by_call.get(call_id, ()) if wait.client == client and not wait.is_over
        )

    def supersede(self, call_id: CallId, client: str, now: float) -> float | None:
        """End the waits that a client abandoned: it repeats the call.

        Returns the seconds that the abandoned request waited; of several, and of one that the client ended itself, the
        shortest. Returns None without such a request. A request younger than `MIN_WAIT` keeps waiting: it is assumed to
        be another program's.
        """
        ended = [wait for wait in self.open_waits(call_id, client) if now - wait.since >= MIN_WAIT]
        for wait in ended:
            wait.supersede()
        ended_by_client = self._ended.pop((call_id, client), 0.0)
        lengths = [now - wait.since for wait in ended] + [ended_by_client] * (ended_by_client >= MIN_WAIT)
        return min(lengths, default=None)

    def supersede_oldest(self, call_id: CallId) -> bool:
        """End the oldest waits for a call beyond `MAX_WAITS_PER_CALL`; returns whether any were ended."""
        open_waits = [wait for wait in self._by_call.get(call_id, ()) if not wait.is_over]
        for wait in (excess := open_waits[:-MAX_WAITS_PER_CALL]):
            wait.supersede()
        return bool(excess)

    def _record_ended(self, wait: PendingWait) -> None:
        """Remember how long a request waited until its client ended it."""
        self._ended[wait.call_id, wait.client] = self._clock() - wait.since
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)


def _remove_wait(waits: dict[Key, tuple[PendingWait, ...]], key: Key, wait: PendingWait) -> None:
    if others := tuple(other for other in waits[key] if other is not wait):
        waits[key] = others
    else:
        del waits[key]
