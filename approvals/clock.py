"""The time that deadlines, limits and claims go by: it never goes back, whatever is done to the machine's clock.

It is the wall clock, or the highest time reached before plus the monotonic time since then, whichever is later. The
store keeps the highest time (the mark) across restarts: in each commit that changes a call, and once a minute besides.
An expiry that was committed is final. After a start with a clock that was set back, a call that was still open lives
longer by the time between the mark and the start; no clock on the machine knows how long that was.

The audit trail keeps wall time, so that it can be compared with other logs. Waits go by the monotonic clock.
"""

from collections.abc import Callable

Clock = Callable[[], float]

#: Seconds by which the wall clock may be behind before the gateway says that it is not ready.
TOLERANCE = 60.0
#: Seconds between two times that are kept where nothing else is committed.
KEEP = 60.0


class EffectiveClock:
    """Epoch seconds (UTC) that never decrease, from a wall clock, a monotonic clock and the mark in the store."""

    def __init__(self, wall: Clock, monotonic: Clock, mark: float = 0.0) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self._mark = mark
        self._marked_at = monotonic()

    def __call__(self) -> float:
        """Return the time now."""
        wall, now = self.wall(), self.monotonic()
        reached = self._mark + now - self._marked_at
        if wall <= reached:
            return reached
        self._mark, self._marked_at = wall, now
        return wall

    @property
    def behind(self) -> float:
        """Seconds by which the wall clock is behind this one."""
        return self() - self.wall()
