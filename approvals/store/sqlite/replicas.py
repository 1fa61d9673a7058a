"""The replicas that share a SQLite store: services in one process, since the file has one user."""

import sqlite3
from collections.abc import Sequence
from functools import partial

import msgspec

from approvals.model import CallId
from approvals.signals import SignalKind
from approvals.store import ENDED_LEASE_LIFE
from approvals.store.sqlite import statements
from approvals.store.sqlite.base import SqliteBase


class SqliteReplicas(SqliteBase):
    """See `approvals.store.ReplicaStore`."""

    async def renew_replica(self, replica: str, now: float, until: float) -> frozenset[str]:
        """Extend a lease."""

        def work(db: sqlite3.Connection) -> frozenset[str]:
            for (ended,) in db.execute(statements.ENDED_REPLICAS, (now - ENDED_LEASE_LIFE,)).fetchall():
                _end(ended, db)
            db.execute(statements.RENEW_REPLICA, (replica, until))
            return frozenset(lock for (lock,) in db.execute(statements.LOCKS_OF_REPLICA, (replica,)))

        return await self.writer.do(work)

    async def end_replica(self, replica: str) -> None:
        """End a lease, and with it everything that it covers."""
        await self.writer.do(partial(_end, replica), then=self._signal(SignalKind.PRESENCE))

    async def live_replicas(self, now: float) -> frozenset[str]:
        """Return the replicas whose lease lasts."""
        rows = await self._read(lambda db: db.execute(statements.LIVE_REPLICAS, (now,)).fetchall())
        return frozenset(replica for (replica,) in rows)

    async def acquire_lock(self, name: str, replica: str, now: float) -> bool:
        """Give a replica a lock, if it is free."""
        values = {"name": name, "replica": replica, "now": now}
        return await self.writer.do(lambda db: db.execute(statements.ACQUIRE_LOCK, values).rowcount == 1)

    async def save_presence(self, replica: str, added: Sequence[CallId], removed: Sequence[CallId]) -> None:
        """Add and remove calls with waiting clients."""

        def work(db: sqlite3.Connection) -> None:
            db.executemany(statements.REMOVE_PRESENCE, [(call_id, replica) for call_id in removed])
            db.executemany(statements.ADD_PRESENCE, [(call_id, replica) for call_id in added])

        await self.writer.do(work, then=self._signal(SignalKind.PRESENCE))

    async def find_attended(self, calls: Sequence[CallId], now: float) -> frozenset[CallId]:
        """Return the calls with waiting clients."""
        values = (msgspec.json.encode(calls).decode(), now)
        rows = await self._read(lambda db: db.execute(statements.ATTENDED, values).fetchall())
        return frozenset(call_id for (call_id,) in rows)


def forget_replicas(db: sqlite3.Connection) -> None:
    """Delete every lease. The file was just locked, so the processes that held them have ended."""
    for statement in statements.FORGET_REPLICAS:
        db.execute(statement)


def _end(replica: str, db: sqlite3.Connection) -> None:
    for statement in statements.END_REPLICA:
        db.execute(statement, (replica,))
