"""Wakes those who wait for a held call to change. It only wakes: the store says what is true."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from approvals.model import CallId
from approvals.store import Store

#: A waiter looks for itself this often (seconds), should a signal ever be lost.
SAFETY_NET = 5.0


class Waiters:
    """Listeners per call, woken by the store's signal."""

    def __init__(self) -> None:
        self._listening: defaultdict[CallId, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def listen(self, call_id: CallId) -> Iterator["Signal"]:
        """Register before reading the store, so that no change between read and wait is missed."""
        event = asyncio.Event()
        self._listening[call_id].add(event)
        try:
            yield Signal(event)
        finally:
            self._listening[call_id].discard(event)
            if not self._listening[call_id]:
                del self._listening[call_id]

    def wake(self, call_id: CallId) -> None:
        """Wake everyone who listens for this call."""
        for event in self._listening.get(call_id, ()):
            event.set()

    async def follow(self, store: Store) -> None:
        """Wake for each change of the store, for ever."""
        async for call_id in store.changes():
            self.wake(call_id)


class Signal:
    """One listener's wake-up."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, seconds: float) -> bool:
        """Return True when woken, False after *seconds*, but look up no later than the safety net."""
        try:
            async with asyncio.timeout(min(seconds, SAFETY_NET)):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
