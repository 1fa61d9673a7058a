"""The ids of held calls: ULIDs (github.com/ulid/spec) in lower case. They sort by time, also within a millisecond."""

import os
import time
from collections.abc import Callable
from itertools import product

from approvals.model import CallId

PREFIX = "hold_"
#: The bits of a ULID after the time; it has 128.
RANDOM_BITS = 80
RANDOM_BYTES = RANDOM_BITS // 8
#: Random bytes that are read at once, for a hundred ids.
DRAWN = 100 * RANDOM_BYTES
#: The 26 digits of a ULID, in pairs: how far the bits of each are shifted. A pair has ten bits.
_SHIFTS = tuple(range(120, -1, -10))
#: Crockford's base32 (crockford.com/base32.html), in pairs of digits.
_PAIRS = tuple(map("".join, product("0123456789abcdefghjkmnpqrstvwxyz", repeat=2)))


class CallIds:
    """Makes the ids of one process."""

    def __init__(
        self, time_ns: Callable[[], int] = time.time_ns, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._time_ns = time_ns
        self._random = random
        self._millisecond = -1
        self._last = 0
        #: Random bytes of the next ids.
        self._drawn = b""

    def make(self) -> CallId:
        """Return a new id; within a millisecond, the id that follows the last one."""
        now = self._time_ns() // 1_000_000
        if now == self._millisecond:
            self._last += 1
        else:
            self._millisecond = now
            self._last = now << RANDOM_BITS | self._draw()
        return CallId(PREFIX + "".join([_PAIRS[self._last >> shift & 1023] for shift in _SHIFTS]))

    def _draw(self) -> int:
        """Return the next random bits. Each read of the system's random numbers lets another thread run, so few are made."""
        if not self._drawn:
            self._drawn = self._random(DRAWN)
        bits, self._drawn = self._drawn[:RANDOM_BYTES], self._drawn[RANDOM_BYTES:]
        return int.from_bytes(bits)
