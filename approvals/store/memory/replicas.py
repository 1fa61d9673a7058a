"""The replicas that share a store in memory."""

from collections.abc import Sequence

from approvals.model import CallId
from approvals.signals import Signal, SignalKind
from approvals.store import ENDED_LEASE_LIFE
from approvals.store.memory.base import MemoryBase


class MemoryReplicas(MemoryBase):
    """See `approvals.store.ReplicaStore`."""

    def __init__(self) -> None:
        super().__init__()
        self._leases: dict[str, float] = {}
        self._holders: dict[str, str] = {}
        self._presence: set[tuple[CallId, str]] = set()

    async def renew_replica(self, replica: str, now: float, until: float) -> frozenset[str]:
        for other in [other for other, end in self._leases.items() if end <= now - ENDED_LEASE_LIFE]:
            await self.end_replica(other)
        self._leases[replica] = until
        return frozenset(name for name, holder in self._holders.items() if holder == replica)

    async def end_replica(self, replica: str) -> None:
        self._leases.pop(replica, None)
        self._holders = {name: holder for name, holder in self._holders.items() if holder != replica}
        self._presence = {waiting for waiting in self._presence if waiting[1] != replica}
        self._feed.publish(Signal(SignalKind.PRESENCE))

    async def live_replicas(self, now: float) -> frozenset[str]:
        return frozenset(replica for replica, end in self._leases.items() if end > now)

    async def acquire_lock(self, name: str, replica: str, now: float) -> bool:
        holder = self._holders.get(name, replica)
        if holder != replica and self._leases.get(holder, now) > now:
            return False
        self._holders[name] = replica
        return True

    async def save_presence(self, replica: str, added: Sequence[CallId], removed: Sequence[CallId]) -> None:
        self._presence -= {(call_id, replica) for call_id in removed}
        self._presence |= {(call_id, replica) for call_id in added}
        self._feed.publish(Signal(SignalKind.PRESENCE))

    async def find_attended(self, calls: Sequence[CallId], now: float) -> frozenset[CallId]:
        live = await self.live_replicas(now)
        present = {call_id for call_id, replica in self._presence if replica in live}
        return frozenset(present.intersection(calls))
