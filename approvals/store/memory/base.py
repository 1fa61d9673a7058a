"""The signals of a store in memory, which every part of it sends."""

from collections.abc import AsyncIterator

from approvals.signals import Signal
from approvals.store.signal_feed import SignalFeed


class MemoryBase:
    """The feed of signals."""

    def __init__(self) -> None:
        self._feed = SignalFeed()

    def signals(self) -> AsyncIterator[Signal]:
        return self._feed.listen()

    def announce(self, signal: Signal) -> None:
        self._feed.publish(signal)
