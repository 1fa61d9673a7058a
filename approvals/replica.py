"""A replica: one approval service among those that share a store.

Its lease in the store covers everything that it holds: the calls that it runs, the clients that wait at it, and locks
such as the one for posting to a channel. When the lease ends, the other replicas may take over all of these. So nothing
else needs a time limit, and ten thousand waiting clients cost one renewal.
"""

from math import inf
from secrets import token_hex

from approvals.clock import Clock
from approvals.store import ReplicaStore

#: Seconds that a lease lasts, and seconds until it is renewed.
LEASE = 30.0
RENEW_EVERY = 10.0
#: Seconds before the end of its lease in which a replica sends nothing: its process may be suspended at any moment.
MARGIN = 10.0
#: Seconds after the end of a lease until other replicas put its runs in doubt.
OVERDUE = 5.0


class Replica:
    """The lease of one replica, and the locks that it holds while the lease lasts."""

    def __init__(self, store: ReplicaStore, clock: Clock) -> None:
        """*clock* never goes back, and never runs slower than a monotonic clock: see `EffectiveClock`."""
        self.id = token_hex(16)
        self._store = store
        # Not a monotonic clock: on Linux that stands still while the machine sleeps.
        self._clock = clock
        #: The end of the lease, as in the store.
        self._ends_at = -inf
        #: The number of the current lease: 1 until it lapses.
        self.lease_number = 0
        #: The time since which every renewal was in time.
        self._on_time_since = inf
        self._locks: frozenset[str] = frozenset()

    @property
    def send_before(self) -> float:
        """The time until which a call claimed now may be sent."""
        return self._ends_at - MARGIN

    async def renew(self) -> None:
        """Renew the lease if RENEW_EVERY seconds of it are over; raises `StoreError`."""
        if (now := self._clock()) < self._renew_at:
            return
        self._locks = await self._store.renew_replica(self.id, now, now + LEASE)
        if self._is_late(now):
            self._on_time_since = now
        self.lease_number += now >= self._ends_at
        self._ends_at = now + LEASE

    @property
    def _renew_at(self) -> float:
        return self._ends_at - LEASE + RENEW_EVERY

    def _is_late(self, now: float) -> bool:
        """Return whether the lease should have been renewed long before *now*."""
        return now >= self._renew_at + OVERDUE

    async def acquire(self, lock: str) -> bool:
        """Acquire *lock* unless another replica holds it; return whether this replica holds it now."""
        await self.renew()
        if lock in self._locks:
            return True
        acquired = await self._store.acquire_lock(lock, self.id, self._clock())
        self._locks |= {lock} if acquired else set()
        return acquired

    def holds(self, lock: str) -> bool:
        """Return whether this replica still holds *lock*."""
        return lock in self._locks and self._clock() < self.send_before

    async def find_lost(self, runners: frozenset[str]) -> frozenset[str]:
        """Return those of *runners*, without this replica, that have no lease or whose lease ended `OVERDUE` seconds ago.

        If this replica renewed its own lease late, the same cause may have ended the other leases: the machine slept, its
        clock was set ahead, or the store failed. Then the others have `OVERDUE` seconds to renew theirs.
        """
        if not (others := runners - {self.id}):
            return others
        now = self._clock()
        on_time = now >= self._on_time_since + OVERDUE and not self._is_late(now)
        return others - await self._store.live_replicas(now - OVERDUE if on_time else -inf)

    async def end(self) -> None:
        """End the lease, and with it everything that it covers; raises `StoreError`."""
        self._ends_at, self._locks = -inf, frozenset()
        await self._store.end_replica(self.id)
