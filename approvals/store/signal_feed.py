"""Passes the signals of one process to its listeners, after their commit."""

import asyncio
from collections import deque
from typing import Self
from weakref import WeakSet

from approvals.signals import Signal, SignalKind

#: The most signals that wait for one listener.
MAX_QUEUED = 10_000


class SignalFeed:
    """The listeners of one event loop, which alone may call `publish`. A listener ends when its iterator is dropped."""

    def __init__(self) -> None:
        self._queues: WeakSet[SignalQueue] = WeakSet()
        self._closed = False

    def publish(self, signal: Signal) -> None:
        """Send a signal to every listener."""
        for queue in self._queues:
            queue.put(signal)

    def listen(self) -> "SignalQueue":
        """Start listening now; yield each signal until `close`."""
        queue = SignalQueue()
        self._queues.add(queue)
        if self._closed:
            queue.end()
        return queue

    def close(self) -> None:
        """End the iterator of every listener."""
        self._closed = True
        for queue in self._queues:
            queue.end()


class SignalQueue:
    """Yields the signals that wait for one listener. RESYNC replaces the signals of a listener that is too slow."""

    def __init__(self) -> None:
        self._signals: deque[Signal] = deque()
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, signal: Signal) -> None:
        """Add a signal. If too many wait, RESYNC replaces them all."""
        if len(self._signals) >= MAX_QUEUED:
            self._signals.clear()
            signal = Signal(SignalKind.RESYNC)
        self._signals.append(signal)
        self._changed.set()

    def end(self) -> None:
        """End the iteration after the waiting signals."""
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Signal:
        while not self._signals:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._signals.popleft()
