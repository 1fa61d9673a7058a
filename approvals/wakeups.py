"""Wakes the callers that wait for a held call to change. They then read the store."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from approvals.model import CallId
from approvals.signals import SignalKind, follow
from approvals.store import SignalStore


class Wakeups:
    """Listeners by call, woken by the store's signals. They also poll now and then, in case a signal is lost."""

    def __init__(self) -> None:
        #: An event for each listener, by call.
        self.listening: defaultdict[CallId, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def listen(self, call_id: CallId) -> Iterator[asyncio.Event]:
        """Register before reading the store, so that no change between reading and waiting is missed."""
        woken = asyncio.Event()
        self.listening[call_id].add(woken)
        try:
            yield woken
        finally:
            self.listening[call_id].discard(woken)
            if not self.listening[call_id]:
                del self.listening[call_id]

    def wake(self, call_id: CallId) -> None:
        """Wake every listener of this call."""
        for woken in self.listening.get(call_id, ()):
            woken.set()

    def wake_all(self) -> None:
        """Wake every listener of every call."""
        for call_id in self.listening:
            self.wake(call_id)

    async def follow(self, store: SignalStore) -> None:
        """Wake the listeners of each call that changes, until the store closes."""
        await follow(
            store.signals(),
            {
                SignalKind.CALL: lambda signal: self.wake(CallId(signal.subject)),
                SignalKind.RESYNC: lambda _: self.wake_all(),
            },
        )
