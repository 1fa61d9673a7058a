"""Held calls in SQLite. Each call is stored whole, with columns for searches, and has a summary."""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import Any, Unpack

from approvals import audit
from approvals.errors import Conflict, StoreError
from approvals.lifecycle import OPEN, last_changed_at
from approvals.model import AuditEvent, CallId, CallLimit, HeldCall, State
from approvals.signals import SignalKind
from approvals.store import NO_LIMIT, CallFilter
from approvals.store.sqlite import statements
from approvals.store.sqlite.trail import SqliteTrail
from approvals.summaries import Summary, limit_size, size

#: Calls without a summary (an older version wrote them) that get one in the same commit.
SUMMARIES_PER_COMMIT = 100


class SqliteCalls(SqliteTrail):
    """See `approvals.store.CallStore`. A call's events are written with it, in one commit."""

    async def add(self, call: HeldCall, *events: AuditEvent, limits: Sequence[CallLimit] = ()) -> None:
        """Insert a call and its events, unless a limit is reached."""
        request = call.call
        names = (request.agent, request.server, request.tool, call.created_at)
        row = (*self._seal.call_columns(call), call.id, call.key, *names)
        summary, bytes_ = self._seal.summary_columns(call), size(call)
        entries = tuple(map(audit.encode_event, events))

        def work(db: sqlite3.Connection) -> None:
            if reached := next((limit for limit in limits if _is_exceeded(limit, bytes_, db)), None):
                # Check before writing, even to a savepoint: the call may be large, and an agent may repeat it endlessly.
                twin = db.execute(statements.SAME_ID_OR_KEY, (call.id, call.key)).fetchone()
                raise Conflict if twin else reached.error
            try:
                n = db.execute(statements.INSERT_CALL, row).lastrowid
            except sqlite3.IntegrityError as error:
                raise Conflict from error
            db.execute(statements.INSERT_SUMMARY, (*summary, n, call.id, *names, bytes_))
            db.execute(statements.KEEP_TIME, (last_changed_at(call),))
            self._write_events(entries, db)

        await self.writer.do(work, then=self._signal(SignalKind.CALL, call.id))

    async def swap(self, old: HeldCall, new: HeldCall, *events: AuditEvent) -> None:
        """Replace a call and add its events."""
        row = (*self._seal.call_columns(new), old.id, old.version)
        summary = (*self._seal.summary_columns(new), old.id)
        entries = tuple(map(audit.encode_event, events))

        def work(db: sqlite3.Connection) -> None:
            if db.execute(statements.SWAP_CALL, row).rowcount != 1:
                raise Conflict
            db.execute(statements.SWAP_SUMMARY, summary)
            self._check_against_trail(old, db)
            db.execute(statements.KEEP_TIME, (last_changed_at(new),))
            self._write_events(entries, db)

        await self.writer.do(work, then=self._signal(SignalKind.CALL, old.id))

    async def get(self, call_id: CallId) -> HeldCall | None:
        """Return one call."""
        return await self._find_call(statements.CALL, call_id)

    async def version(self, call_id: CallId) -> int | None:
        """Return the version of a call."""
        row = await self._read_row(statements.VERSION, call_id)
        return None if row is None else int(row[0])

    async def find(self, key: str) -> HeldCall | None:
        """Return the newest call with a key."""
        return await self._find_call(statements.NEWEST_OF_KEY, key)

    async def select(
        self,
        states: Sequence[State] = (),
        *,
        limit: int = 200,
        room: float = inf,
        **matching: Unpack[CallFilter],
    ) -> Sequence[HeldCall]:
        """Return calls, newest first."""
        sql, values = statements.calls(statements.ROWS, states, limit=limit, **matching)

        def work(db: sqlite3.Connection) -> list[HeldCall]:
            rows = list(limit_size(db.execute(sql, values), room))
            return [call for n in rows for call in self._read_calls(statements.CALL_OF_ROW, (n,), db)]

        return await self._read(work)

    async def summaries(
        self,
        states: Sequence[State] = (),
        *,
        limit: int = NO_LIMIT,
        **matching: Unpack[CallFilter],
    ) -> Sequence[Summary]:
        """Return the summaries of calls, newest first."""
        sql, values = statements.calls(statements.SUMMARIES, states, limit=limit, **matching)
        return await self._find_summaries(sql, values)

    async def due(self, now: float) -> Sequence[Summary]:
        """Return the calls whose deadline has passed."""
        return await self._find_summaries(statements.DUE, (now,))

    async def open_counts(self) -> Mapping[State, int]:
        """Return the number of calls in each open state, and in doubt."""
        found = await self._read(lambda db: dict(db.execute(statements.OPEN_COUNTS).fetchall()))
        return {state: found.get(state, 0) for state in (*OPEN, State.IN_DOUBT)}

    async def open_tasks(self) -> Sequence[CallId]:
        """Return the ids of the open calls with a task handle."""
        rows = await self._read(lambda db: db.execute(statements.OPEN_TASKS).fetchall())
        return [CallId(row[0]) for row in rows]

    async def open_summaries(self, *, server: str = "", tool: str = "") -> Sequence[Summary]:
        """Return the summaries of the open calls."""
        return await self._find_summaries(statements.OPEN_SUMMARIES, {"server": server, "tool": tool})

    async def _find_summaries(self, sql: str, values: Sequence[Any] | Mapping[str, Any]) -> Sequence[Summary]:
        def work(db: sqlite3.Connection) -> list[Summary]:
            return [self._seal.open_summary(body, seal) for body, seal in db.execute(sql, values)]

        return await self._read(work)

    async def _find_call(self, sql: str, *values: Any) -> HeldCall | None:
        return next(iter(await self._read(partial(self._read_calls, sql, values))), None)

    # In the threads of the reader and the writer.

    def _read_calls(self, sql: str, values: Sequence[Any], db: sqlite3.Connection) -> list[HeldCall]:
        return [self._seal.open_call(body, seal) for body, seal in db.execute(sql, values)]

    def _verify_open_calls(self, db: sqlite3.Connection) -> None:
        """Raise `StoreError` unless the open calls are as written, under this key."""
        for body, seal in db.execute(statements.OPEN_CALLS):  # one by one: together they may be large
            self._check_against_trail(self._seal.open_call(body, seal), db)

    def _check_against_trail(self, call: HeldCall, db: sqlite3.Connection) -> None:
        """Raise `StoreError` unless *call* has the version and state of its last audit event.

        An older row has a valid seal, so someone could restore it to run the call again. Checked only with a key:
        without one, the trail could be rewritten as well.
        """
        if self._key and (call.version, call.state) != self._last_state(call.id, db):
            raise StoreError(f"The held call {call.id} does not match its last audit event.")

    def _write_missing_summaries(self, db: sqlite3.Connection) -> bool:
        """Write the summaries of some calls that have none; return whether there may be more."""
        for _ in range(SUMMARIES_PER_COMMIT):
            row = db.execute(statements.WITHOUT_SUMMARY).fetchone()
            if row is None:
                return False
            state, body, seal, *names = row
            try:
                call = self._seal.open_call(body, seal)
                summary, bytes_ = self._seal.summary_columns(call), size(call)
            except StoreError:  # an empty summary cannot be read either, so lists report the damage
                summary, bytes_ = (state, False, b"", b""), len(body)
            db.execute(statements.INSERT_SUMMARY, (*summary, *names, bytes_))
        return True


def _is_exceeded(limit: CallLimit, bytes_: int, db: sqlite3.Connection) -> bool:
    """Return whether one more call of *bytes_* bytes would exceed a limit."""
    sql, values = statements.usage(limit)
    used = int(db.execute(sql, values).fetchone()[0])
    return used + (bytes_ if limit.in_bytes else 1) > limit.most
