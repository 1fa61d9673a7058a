"""Wakes the callers that wait for a held call to change. They then read the store."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from approvals.model import CallId
from approvals.signals import SignalKind, follow
from approvals.store import SignalStore

#: Called in the event loop when the call may have changed.
Listener = Callable[[], None]


class Wakeups:
    """Listeners by call, woken by the store's signals. They also poll now and then, in case a signal is lost."""

    def __init__(self) -> None:
        #: The listeners by call. Most calls have one, and thousands may be open: a tuple is smaller than a set.
        self.listening: dict[CallId, tuple[Listener, ...]] = {}

    def add(self, call_id: CallId, listener: Listener) -> None:
        """Register before reading the store, so that no change between reading and waiting is missed."""
        self.listening[call_id] = (*self.listening.get(call_id, ()), listener)

    def remove(self, call_id: CallId, listener: Listener) -> None:
        """Remove a listener, if it is there."""
        others = tuple(other for other in self.listening.get(call_id, ()) if other != listener)
        if others:
            self.listening[call_id] = others
        else:
            self.listening.pop(call_id, None)

    @contextmanager
    def listen(self, call_id: CallId) -> Iterator[asyncio.Event]:
        """Yield an event that is set when the call may have changed."""
        woken = asyncio.Event()
        self.add(call_id, woken.set)
        try:
            yield woken
        finally:
            self.remove(call_id, woken.set)

    def wake(self, call_id: CallId) -> None:
        """Wake every listener of this call."""
        for listener in self.listening.get(call_id, ()):
            listener()

    def wake_all(self) -> None:
        """Wake every listener of every call."""
        for call_id in tuple(self.listening):
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
