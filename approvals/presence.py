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
        #: When a client last began to wait for each call, oldest first; kept for `MIN_ATTENDED` seconds.
        self._arrivals: dict[CallId, float] = {}
        #: The calls whose clients came or left since the last save.
        self._changed: set[CallId] = set()
        #: The calls that the store has for this replica, and the number of the lease under which they were written.
        self._saved: set[CallId] = set()
        self._lease_number = 0

    def arrive(self, call_id: CallId) -> None:
        """Mark a call as attended: a client begins to wait for it."""
        self.clients[call_id] += 1
        self._arrivals.pop(call_id, None)
        self._arrivals[call_id] = self._clock()
        self._changed.add(call_id)

    def leave(self, call_id: CallId) -> None:
        """Note that one client no longer waits for a call."""
        self.clients[call_id] -= 1
        if not self.clients[call_id]:
            del self.clients[call_id]
            self._changed.add(call_id)

    @contextmanager
    def attend(self, call_id: CallId) -> Iterator[None]:
        """Mark a call as attended while the context is open: a client waits for it."""
        self.arrive(call_id)
        try:
            yield
        finally:
            self.leave(call_id)

    async def find_attended(self, calls: Sequence[HeldCall | Summary]) -> frozenset[CallId]:
        """Return those of *calls* for which a client waits at any replica, or has just begun to."""
        now = self._clock()
        here = {call.id for call in calls if call.id in self.clients or now < call.created_at + MIN_ATTENDED}
        others = [call.id for call in calls if call.id not in here]
        return frozenset(here) | (await self._store.find_attended(others, now) if others else frozenset())

    async def save(self) -> None:
        """Save the changes since the last time; after a lapse of the lease, save every call again.

        The cost depends on the changes, not on the number of calls.
        """
        self._forget_arrivals()
        lease = self._replica.lease_number
        lapsed = lease != self._lease_number
        changed, self._changed = self._changed, set()
        if lapsed:
            changed = {*self._saved, *self.clients, *self._arrivals}
        attended = {call_id for call_id in changed if call_id in self.clients or call_id in self._arrivals}
        added = attended if lapsed else attended - self._saved
        removed = (changed - attended) & self._saved
        try:
            if added or removed:
                await self._store.save_presence(self._replica.id, sorted(added), sorted(removed))
        except BaseException:
            self._changed |= changed
            raise
        self._saved |= added
        self._saved -= removed
        self._lease_number = lease

    def _forget_arrivals(self) -> None:
        """Forget the arrivals before the last `MIN_ATTENDED` seconds; a clock that is set back forgets none."""
        since = self._clock() - MIN_ATTENDED
        while self._arrivals and self._arrivals[oldest := next(iter(self._arrivals))] <= since:
            del self._arrivals[oldest]
            self._changed.add(oldest)
