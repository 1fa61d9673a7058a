"""Held calls in SQLite. Each call is stored whole, and has a summary."""

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any

from approvals import audit
from approvals.errors import Conflict, StoreError
from approvals.lifecycle import last_changed_at
from approvals.model import AuditEvent, CallId, CallLimit, HeldCall
from approvals.signals import SignalKind
from approvals.store.sqlite import statements
from approvals.store.sqlite.lists import SqliteLists
from approvals.store.sqlite.trail import SqliteTrail
from approvals.summaries import size

#: How many missing summaries (of calls that an older version wrote) are written in one commit.
SUMMARIES_PER_COMMIT = 100


class SqliteCalls(SqliteLists, SqliteTrail):
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
