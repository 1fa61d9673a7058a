"""The calls for which clients wait, at this replica and at the others that share the store.

Presence belongs to no version of a call, and its changes are not audit events: clients come and go all the time.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from approvals.clock import Clock
from approvals.model import CallId, HeldCall
from approvals.replica import Replica
from approvals.store import ReplicaStore
from approvals.summaries import Summary

#: The least time, in seconds, for which a call is attended after it was held, or after a client began to wait for it.
#: So a page is right before the first sweep, and does not flicker while a client reconnects.
MIN_ATTENDED = 3.0


class Presence:
    """Counts the clients that wait at this replica, and shares with other replicas which calls they wait for."""

    def __init__(self, store: ReplicaStore, replica: Replica, clock: Clock) -> None:
        self._store = store
        self._replica = replica
        self._clock = clock
        #: How many clients wait for each call in this process.
        self.clients: Counter[CallId] = Counter()
        #: When a client last began to wait for each call; kept for `MIN_ATTENDED` seconds.
        self._arrivals: dict[CallId, float] = {}
        #: The calls that the store has for this replica, and the number of the lease under which they were written.
        self._saved: frozenset[CallId] = frozenset()
        self._lease_number = 0

    @contextmanager
    def attend(self, call_id: CallId) -> Iterator[None]:
        """Mark a call as attended while the context is open: a client waits for it."""
        self.clients[call_id] += 1
        self._arrivals[call_id] = self._clock()
        try:
            yield
        finally:
            self.clients[call_id] -= 1
            if not self.clients[call_id]:
                del self.clients[call_id]

    async def find_attended(self, calls: Sequence[HeldCall | Summary]) -> frozenset[CallId]:
        """Return those of *calls* for which a client waits at any replica, or has just begun to."""
        now = self._clock()
        here = {call.id for call in calls if call.id in self.clients or now < call.created_at + MIN_ATTENDED}
        others = [call.id for call in calls if call.id not in here]
        return frozenset(here) | (await self._store.find_attended(others, now) if others else frozenset())

    async def save(self) -> None:
        """Save the changes since the last time; after a lapse of the lease, save every call again."""
        attended, lease = frozenset(self.clients) | self._recent(), self._replica.lease_number
        known = self._saved if lease == self._lease_number else frozenset()
        added, removed = attended - known, self._saved - attended
        if added or removed:
            await self._store.save_presence(self._replica.id, sorted(added), sorted(removed))
        self._saved, self._lease_number = attended, lease

    def _recent(self) -> frozenset[CallId]:
        """Return the calls for which a client has just begun to wait; forget the older arrivals."""
        since = self._clock() - MIN_ATTENDED
        self._arrivals = {call_id: at for call_id, at in self._arrivals.items() if at > since}
        return frozenset(self._arrivals)
