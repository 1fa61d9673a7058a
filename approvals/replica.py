"""A replica: one approval service among those that share a store.

Its lease in the store covers everything that it holds: the calls that it runs, the clients that wait at it, and names
such as the one that lets it post to a channel. When the lease ends, all of that is free for other replicas. So nothing
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
    """Renews the lease of one replica, and knows what the replica holds while the lease lasts."""

    def __init__(self, store: ReplicaStore, *, clock: Clock, monotonic: Clock) -> None:
        self.id = str(ULID()).lower()
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        #: The end of the lease on the monotonic clock. It is never later than the end in the store.
        self._ends_at = -inf
        #: How many times the lease has begun: 1 until it lapses.
        self.term = 0
        self._names: frozenset[str] = frozenset()

    @property
    def send_before(self) -> float:
        """The monotonic time until which a call claimed now may be sent."""
        return self._ends_at - MARGIN

    async def renew(self) -> None:
        """Renew the lease if RENEW_EVERY seconds of it are over; raises `StoreError`."""
        if (started := self._monotonic()) < self._ends_at - LEASE + RENEW_EVERY:
            return
        now = self._clock()
        self._names = await self._store.renew_replica(self.id, now, now + LEASE)
        self.term += started >= self._ends_at
        self._ends_at = started + LEASE

    async def take(self, name: str) -> bool:
        """Return whether this replica holds *name*, which one replica holds at a time; take it if it is free."""
        await self.renew()
        if name in self._names:
            return True
        taken = await self._store.take_name(name, self.id, self._clock())
        self._names |= {name} if taken else set()
        return taken

    def holds(self, name: str) -> bool:
        """Return whether this replica still holds *name*."""
        return name in self._names and self._monotonic() < self.send_before

    async def lost(self, runners: frozenset[str]) -> frozenset[str]:
        """Return those of *runners*, other replicas, whose lease ended `OVERDUE` seconds ago."""
        others = runners - {self.id}
        return others - await self._store.live_replicas(self._clock() - OVERDUE) if others else others

    async def end(self) -> None:
        """End the lease and free everything that it covers; raises `StoreError`."""
        self._ends_at, self._names = -inf, frozenset()
        await self._store.end_replica(self.id)
