"""Tracks which requests wait for which held call, and ends the wait of a client that has given up.

SDK clients cancel when their own timer ends, and most of them keep the connection. Others send nothing, and ask again. Without
an end to such a wait, an approval would run the call for a client that no longer reads, and its answer would be lost.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from approvals.model import CallId
from gateway.hold.event_buffer import EventBuffer
from gateway.hold.patience import MIN_WAIT
from gateway.wire import frames

Key = TypeVar("Key")

#: The most requests that are remembered after their clients ended them.
MAX_ENDED = 10_000
#: The most requests that wait for one call: each keeps its own copy of the arguments in memory.
MAX_WAITS_PER_CALL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """A request as its client names it: ids are the client's own, counted anew in each session."""

    agent: str
    server: str
    session: str
    id: frames.Id


@dataclass(slots=True, eq=False, kw_only=True)
class PendingWait:
    """One request that waits for a held call, until its client cancels it or asks for the call again."""

    call_id: CallId
    #: The client's name for itself.
    client: str = ""
    #: When it began to wait.
    since: float = 0.0
    cancelled: bool = False
    #: Whether a newer request for the call took its place.
    superseded: bool = False
    #: What its server says while the call runs for this request; None when it does not.
    events: EventBuffer | None = field(default=None, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether the client no longer listens to the answer of this request."""
        return self.cancelled or self.superseded

    def stop_events(self) -> None:
        """Show nothing more of a run; the run itself goes on."""
        if self.events is not None:
            self.events.put(None)

    def supersede(self) -> None:
        """End the wait in favour of a newer request."""
        self.superseded = True
        self.stop_events()


class Cancellations:
    """Every wait there is now."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waits: defaultdict[RequestKey, list[PendingWait]] = defaultdict(list)
        self._of_call: defaultdict[CallId, list[PendingWait]] = defaultdict(list)
        #: For how many seconds the last request of a client waited for a call, when the client ended it itself.
        self._ended: OrderedDict[tuple[CallId, str], float] = OrderedDict()
        #: Whether nobody waits any more, because the gateway stops.
        self.closed = False
        #: The tasks of clients that will take up their stream at the next gateway. Their streams end last.
        self.parked: set[asyncio.Task[Any] | None] = set()
        self._parking_over = asyncio.Event()

    async def park(self) -> None:
        """Keep a stream open until the gateway is about to end: its client comes back once the stream has ended."""
        task = asyncio.current_task()
        self.parked.add(task)
        try:
            await self._parking_over.wait()
        finally:
            self.parked.discard(task)

    def end_parked(self) -> None:
        """End the streams of the clients that are parked."""
        self._parking_over.set()

    @contextmanager
    def track(self, key: RequestKey, wait: PendingWait) -> Iterator[PendingWait]:
        """Note a wait for as long as the context is open."""
        self._waits[key].append(wait)
        self._of_call[wait.call_id].append(wait)
        self._ended.pop((wait.call_id, wait.client), None)
        answered = False
        try:
            yield wait
            answered = not wait.cancelled
        finally:
            _remove_wait(self._waits, key, wait)
            _remove_wait(self._of_call, wait.call_id, wait)
            if not answered and not wait.superseded:
                self._record_ended(wait)

    def cancel(self, key: RequestKey) -> tuple[CallId, ...]:
        """End the waits for a request; returns the calls that were waited for.

        Without sessions two clients of one agent may use one id: then both stop waiting, and the other one asks again.
        """
        ended = tuple(self._waits.get(key, ()))
        for wait in ended:
            wait.cancelled = True
            wait.stop_events()
        return tuple(wait.call_id for wait in ended)

    def open_waits(self, call_id: CallId, client: str) -> tuple[PendingWait, ...]:
        """Return the waits of clients of this name for a call that are not over."""
        return tuple(
            one for one in self._of_call.get(call_id, ()) if one.client == client and not one.is_over
        )

    def supersede(self, call_id: CallId, client: str, now: float) -> float | None:
        """End the waits that a client must have given up, since it asks for the same call again.

        Returns the seconds that the youngest of them had lasted, or the one that the client cancelled or hung up on; None
        when there was none. A request that is younger than `LEAST` waits on: it is taken for another program's.
        """
        ended = [wait for wait in self.open_waits(call_id, client) if now - wait.since >= MIN_WAIT]
        for wait in ended:
            wait.supersede()
        left = self._ended.pop((call_id, client), 0.0)
        lasted = [now - wait.since for wait in ended] + [left] * (left >= MIN_WAIT)
        return min(lasted, default=None)

    def supersede_oldest(self, call_id: CallId) -> bool:
        """End the oldest of more than `MOST` waits for a call; returns whether there were more."""
        open_waits = [wait for wait in self._of_call[call_id] if not wait.is_over]
        for wait in (crowded_out := open_waits[:-MAX_WAITS_PER_CALL]):
            wait.supersede()
        return bool(crowded_out)

    def _record_ended(self, wait: PendingWait) -> None:
        """Note that a client ended its request itself."""
        self._ended[wait.call_id, wait.client] = self._clock() - wait.since
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)


def _remove_wait(waits: dict[Key, list[PendingWait]], key: Key, wait: PendingWait) -> None:
    waits[key].remove(wait)
    if not waits[key]:
        del waits[key]
