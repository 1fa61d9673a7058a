"""Held calls in SQLite. Each call is stored whole, and has a summary."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from typing import Any

from approvals import audit
from approvals.errors import Conflict, StoreError
from approvals.model import AuditEvent, CallId, CallLimit, HeldCall, State
from approvals.signals import Signal, SignalKind
from approvals.store.open_calls import OpenCall, open_call
from approvals.store.sqlite import statements
from approvals.store.sqlite.call_writes import (
    CallWrite,
    encode_change,
    encode_new,
    insert_calls,
    swap_calls,
)
from approvals.store.sqlite.lists import SqliteLists
from approvals.store.sqlite.trail import SqliteTrail
from approvals.summaries import size

#: How many missing summaries (of calls that an older version wrote) are written in one commit.
SUMMARIES_PER_COMMIT = 100


class SqliteCalls(SqliteLists, SqliteTrail):
    """See `approvals.store.CallStore`. A call's events are written with it, in one commit."""

    async def add(self, call: HeldCall, *events: AuditEvent, limits: Sequence[CallLimit] = ()) -> None:
        """Insert a call and its events, unless a limit is reached."""
        bytes_ = size(call)
        await self._prepare(call, limits, bytes_)
        if call.id in self._open.by_id or call.key in self._open.by_key:
            raise Conflict
        if reached := next((limit for limit in limits if self._is_exceeded(limit, bytes_)), None):
            # Nothing is written: the call may be large, and an agent may repeat it endlessly.
            twin = await self._read_now(lambda db: db.execute(statements.SAME_ID, (call.id,)).fetchone())
            raise Conflict if twin else reached.error
        new, entries = encode_new(call, self._seal), tuple(map(audit.encode_event, events))
        self._in_flight.begin(call.id, call.key)
        self._keys.add((call.key,))
        self._open.reserve(call)
        self._recent.reserve(call)
        added, refused = partial(self._added, call), partial(self._refused, call)
        await self.writer.write(insert_calls, new, *entries, then=added, otherwise=refused)

    async def _prepare(self, call: HeldCall, limits: Sequence[CallLimit], bytes_: int) -> None:
        """Wait until no write of the call's id or key is in flight, and each limit can be checked."""
        timed = [limit for limit in limits if limit.since]
        while True:
            if call.id in self._in_flight or call.key in self._in_flight:
                await self._in_flight.wait(call.id, call.key)
            elif limit := next((one for one in timed if self._recent.must_move(one, bytes_)), None):
                await self._recent.move(limit)
            else:
                return

    def _is_exceeded(self, limit: CallLimit, bytes_: int) -> bool:
        """Return whether one more call of *bytes_* bytes would exceed a limit."""
        return (self._recent if limit.since else self._open.usage).exceeds(limit, bytes_)

    def _added(self, call: HeldCall) -> None:
        self._in_flight.end(call.id, call.key)
        self._open.add(call)
        self._recent.add(call)
        self._feed.publish(Signal(SignalKind.CALL, call.id))

    def _refused(self, call: HeldCall) -> None:
        self._in_flight.end(call.id, call.key)
        self._open.give_back(call)
        self._recent.reserve(call, -1)

    async def swap(self, old: HeldCall, new: HeldCall, *events: AuditEvent) -> None:
        """Replace a call and add its events."""
        known = None if old.id in self._in_flight else self._open.by_id.get(old.id)
        if known is not None and known.version != old.version:
            raise Conflict
        change, entries = encode_change(old, new, self._seal), tuple(map(audit.encode_event, events))
        self._in_flight.begin(old.id, old.key)
        swapped, refused = partial(self._swapped, new), partial(self._in_flight.end, old.id, old.key)
        if known is None and self._key:
            work = partial(self._swap_checked, old, change)
            await self.writer.do(work, *entries, then=swapped, otherwise=refused)
            return
        try:
            await self.writer.write(swap_calls, change, *entries, then=swapped, otherwise=refused)
        except Conflict:
            if known is None:
                raise
            # The caller would read the same version from memory again, and try forever.
            raise _changed_in_file(old.id) from None

    def _swapped(self, new: HeldCall) -> None:
        self._in_flight.end(new.id, new.key)
        self._open.replace(new)
        self._feed.publish(Signal(SignalKind.CALL, new.id))

    async def get(self, call_id: CallId) -> HeldCall | None:
        """Return one call."""
        await self._in_flight.wait(call_id)
        self.reader.check()
        if (found := self._open.by_id.get(call_id)) is not None:
            return found.call or await self._read_open(found)
        return await self._find_call(statements.CALL, call_id)

    async def version(self, call_id: CallId) -> int | None:
        """Return the version of a call."""
        await self._in_flight.wait(call_id)
        self.reader.check()
        if (found := self._open.by_id.get(call_id)) is not None:
            return found.version
        row = await self._read_now(lambda db: db.execute(statements.VERSION, (call_id,)).fetchone())
        return None if row is None else int(row[0])

    async def find(self, key: str) -> HeldCall | None:
        """Return the newest call with a key."""
        await self._in_flight.wait(key)
        self.reader.check()
        if (found := self._open.by_key.get(key)) is not None:
            return found.call or await self._read_open(found)
        return await self._find_call(statements.NEWEST_OF_KEY, key) if key in self._keys else None

    async def due(self, now: float) -> Sequence[CallId]:
        """Return the calls whose deadline has passed."""
        self.reader.check()
        return self._open.due(now)

    async def open_counts(self) -> Mapping[State, int]:
        """Return the number of calls in each open state, and in doubt."""
        self.reader.check()
        return self._open.counts()

    async def open_tasks(self) -> Sequence[CallId]:
        """Return the ids of the open calls with a task handle."""
        self.reader.check()
        return self._open.tasks()

    async def _read_open(self, known: OpenCall) -> HeldCall:
        """Read a large open call from the file."""
        found = await self._find_call(statements.CALL, known.id)
        if found is None or found.version < known.version:
            raise _changed_in_file(known.id)
        return found

    async def _find_call(self, sql: str, *values: Any) -> HeldCall | None:
        return next(iter(await self._read_now(partial(self._read_calls, sql, values))), None)

    async def _fill_key_filter(self) -> None:
        """Add the keys in the file to the filter. If that fails, every search goes on to read the file."""
        last = ""
        with suppress(StoreError):
            while found := await self._read_now(partial(_read_key_prefixes, last)):
                self._keys.add(found)
                last = found[-1]
            self._keys.complete()

    # In the threads of the reader and the writer.

    def _read_calls(self, sql: str, values: Sequence[Any], db: sqlite3.Connection) -> list[HeldCall]:
        return [self._seal.open_call(body, seal) for body, seal in db.execute(sql, values)]

    def _verify_open_calls(self, db: sqlite3.Connection) -> list[OpenCall]:
        """Return the open calls, oldest first; raise `StoreError` unless they are as written, under this key."""
        found = []
        for n, body, seal in db.execute(statements.OPEN_CALLS):  # one by one: together they may be large
            self._check_against_trail(call := self._seal.open_call(body, seal), db)
            found.append((n, open_call(call)))
        return [one for _, one in sorted(found, key=itemgetter(0))]

    def _swap_checked(self, old: HeldCall, change: CallWrite, db: sqlite3.Connection) -> None:
        """Replace a call whose version is known from the file only."""
        swap_calls(db, [change])
        self._check_against_trail(old, db)

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
            n, state, body, seal, *names = row
            try:
                call = self._seal.open_call(body, seal)
                (_, summary), bytes_ = self._seal.columns(call), size(call)
            except StoreError:  # an empty summary cannot be read either, so lists report the damage
                summary, bytes_ = (state, 0, b"", b""), len(body)
            db.execute(statements.INSERT_SUMMARY, (n, *summary, *names, bytes_))
        return True


def _changed_in_file(call_id: CallId) -> StoreError:
    return StoreError(f"The held call {call_id} was changed in the store while the gateway ran.")


def _read_key_prefixes(after: str, db: sqlite3.Connection) -> list[str]:
    return [prefix for (prefix,) in db.execute(statements.KEY_PREFIXES, (after,))]
