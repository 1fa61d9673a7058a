"""Timers of thousands of waiting clients, behind one timer of the event loop."""

import asyncio
import logging
from collections.abc import Callable
from math import ceil
from typing import Protocol

#: Seconds between two slots of the wheel; a timer fires at most this late. A power of two, so that slots are exact.
SPACING = 1 / 16
#: The least delay of the event loop's timer, in seconds: its clock may be a rounding error behind.
LEAST_DELAY = 0.001
#: The most timers that fire before the event loop runs other callbacks.
MOST_AT_ONCE = 16
log = logging.getLogger("okayed.hold")


class TimerOwner(Protocol):
    """An object with a timer."""

    def on_time(self) -> None:
        """Act on the timer that has fired."""


class TimerWheel:
    """The timers, in slots of `SPACING` seconds of an injected monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slots: dict[int, dict[TimerOwner, None]] = {}
        #: The timer of the event loop, and the slot for which it is set.
        self._timer: asyncio.Handle | None = None
        self._next = 0

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def add(self, timed: TimerOwner, due: float) -> int:
        """Call `on_time` once at *due*; returns the slot, with which `remove` finds the timer."""
        slot = ceil(due / SPACING)
        self._slots.setdefault(slot, {})[timed] = None
        if self._timer is None or slot < self._next:
            self._set(slot)
        return slot

    def remove(self, timed: TimerOwner, slot: int) -> None:
        """Remove a timer, whether or not it has fired."""
        timers = self._slots.get(slot, {})
        timers.pop(timed, None)
        if not timers:
            self._slots.pop(slot, None)
        if not self._slots and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = slot
        delay = slot * SPACING - self._clock()
        self._timer = asyncio.get_running_loop().call_later(max(LEAST_DELAY, delay), self._turn)

    def _turn(self) -> None:
        """Fire due timers, at most `MOST_AT_ONCE` of them; then set the timer of the event loop again."""
        self._timer = None
        for _ in range(MOST_AT_ONCE):
            if not self._slots or (slot := min(self._slots)) * SPACING > self._clock():
                break
            timed = next(iter(self._slots[slot]))
            self.remove(timed, slot)
            _fire(timed)
        if self._slots:  # a timer that fired may have set a later one
            self._set(min(self._slots))


def _fire(timed: TimerOwner) -> None:
    try:
        timed.on_time()
    except Exception:  # one failure must not stop the timers of the others
        log.exception("a timer failed")
