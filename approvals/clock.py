"""The clock of deadlines, limits and claims: it never goes back, even if the machine's clock is set back.

It is the later of two times: the wall clock, and the highest time so far plus the monotonic time since then. The store
keeps the highest time across restarts: with each commit that changes a call, and once a minute. A committed expiry is
final. If the clock was set back before a start, open calls live longer by the time between the last saved time and the
start; the gateway cannot know how long that was.

The audit trail has wall time, so that it can be compared with other logs. Waits are measured with the monotonic clock.
"""

from collections.abc import Callable

Clock = Callable[[], float]

#: Seconds that the wall clock may be behind before the gateway reports that it is not ready.
TOLERANCE = 60.0
#: Seconds after which the time is saved, if no change of a call saved it.
KEEP_EVERY = 60.0


class EffectiveClock:
    """Epoch seconds (UTC) that never decrease; *highest* is the highest time kept in the store."""

    def __init__(self, wall: Clock, monotonic: Clock, highest: float = 0.0) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self._highest = highest
        self._highest_at = monotonic()

    def __call__(self) -> float:
        """Return the time now."""
        wall, now = self.wall(), self.monotonic()
        minimum = self._highest + now - self._highest_at
        if wall <= minimum:
            return minimum
        self._highest, self._highest_at = wall, now
        return wall

    @property
    def behind(self) -> float:
        """Seconds that the wall clock is behind this clock."""
        return self() - self.wall()
