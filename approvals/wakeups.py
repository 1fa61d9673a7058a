"""Wakes those who wait for a held call to change. It only wakes: the store says what is true."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from approvals.model import CallId
from approvals.store import CallStore


class Wakeups:
    """Listeners per call, woken by the store's signal. They look for themselves now and then, should one be lost."""

    def __init__(self) -> None:
        self._listening: defaultdict[CallId, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def listen(self, call_id: CallId) -> Iterator[asyncio.Event]:
        """Register before reading the store, so that no change between reading and waiting is missed."""
        woken = asyncio.Event()
        self._listening[call_id].add(woken)
        try:
            yield woken
        finally:
            self._listening[call_id].discard(woken)
            if not self._listening[call_id]:
                del self._listening[call_id]

    def wake(self, call_id: CallId) -> None:
        """Wake everyone who listens for this call."""
        for woken in self._listening.get(call_id, ()):
            woken.set()

    def wake_all(self) -> None:
        """Wake everyone, to look at something else than the store."""
        for call_id in self._listening:
            self.wake(call_id)

    async def follow(self, store: CallStore) -> None:
        """Wake for each change of the store, for ever."""
        async for call_id in store.changes():
            self.wake(call_id)
