"""A replica: one approval service among those that share a store.

Its lease in the store covers everything that it holds: the calls that it runs, the clients that wait at it, and locks
such as the one for posting to a channel. When the lease ends, the other replicas may take over all of these. So nothing
else needs a time limit, and ten thousand waiting clients cost one renewal.
"""

from math import inf

from ulid import ULID

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

    def __init__(self, store: ReplicaStore, *, clock: Clock, monotonic: Clock) -> None:
        self.id = str(ULID()).lower()
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        #: The end of the lease on the monotonic clock. It is never later than the end in the store.
        self._ends_at = -inf
        #: The number of the current lease: 1 until it lapses.
        self.lease_number = 0
        self._locks: frozenset[str] = frozenset()

    @property
    def send_before(self) -> float:
        """The monotonic time until which a call claimed now may be sent."""
        return self._ends_at - MARGIN

    async def renew(self) -> None:
        """Renew the lease if RENEW_EVERY seconds of it are over; raises `StoreError`."""
        if (started := self._monotonic()) < self._ends_at - LEASE + RENEW_EVERY:
            return
        now = self._clock()
        self._locks = await self._store.renew_replica(self.id, now, now + LEASE)
        self.lease_number += started >= self._ends_at
        self._ends_at = started + LEASE

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
        return lock in self._locks and self._monotonic() < self.send_before

    async def find_lost(self, runners: frozenset[str]) -> frozenset[str]:
        """Return those of *runners*, except this replica, whose lease ended at least `OVERDUE` seconds ago."""
        others = runners - {self.id}
        return others - await self._store.live_replicas(self._clock() - OVERDUE) if others else others

    async def end(self) -> None:
        """End the lease, and with it everything that it covers; raises `StoreError`."""
        self._ends_at, self._locks = -inf, frozenset()
        await self._store.end_replica(self.id)
