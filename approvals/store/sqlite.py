"""The durable store: one SQLite file, one connection, one writer thread, WAL with `synchronous=FULL`.

One connection only, since SQLite before 3.51.3 can corrupt a WAL that two connections reset. Each call is kept whole
as JSON under a seal, beside the columns it is searched by. Changes are told after the commit that holds them.
"""

import asyncio
import hashlib
import hmac
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from approvals import audit
from approvals.errors import Conflict, StoreError
from approvals.lifecycle import SETTLED
from approvals.model import AuditEvent, CallId, HeldCall, LoginSession, Notice, State
from approvals.store._file import StoreFile
from approvals.store._writer import Writer
from approvals.store.changes import Changes

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(HeldCall).decode

_OPEN = frozenset(State) - SETTLED
_INSERT_CALL = """
    INSERT INTO calls (version, state, digest, expires_at, settled_at, body, seal, id, key, agent, server, tool, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SWAP_CALL = """
    UPDATE calls SET version = ?, state = ?, digest = ?, expires_at = ?, settled_at = ?, body = ?, seal = ?
    WHERE id = ? AND version = ?
"""
_DUE = """
    SELECT body, seal FROM calls WHERE state IN ('pending', 'approved') AND expires_at <= ? ORDER BY expires_at, n
"""
# Two halves, each found by an index: open calls, and settled ones that the channel did post.
_STALE = """
    SELECT calls.n, body, seal, notice.* FROM calls
    LEFT JOIN (SELECT * FROM notices WHERE channel = :channel) AS notice ON notice.call = calls.id
    WHERE state IN ('pending', 'approved', 'forwarding', 'in_doubt')
    AND (notice.call IS NULL OR notice.shown_version < notice.wanted AND notice.retry_at <= :now)
    UNION ALL
    SELECT calls.n, body, seal, notices.* FROM notices JOIN calls ON calls.id = notices.call
    WHERE channel = :channel AND shown_version < wanted AND retry_at <= :now AND ref IS NOT NULL
    AND state NOT IN ('pending', 'approved', 'forwarding', 'in_doubt')
    ORDER BY 1
"""
_SHOWN = """
    INSERT OR REPLACE INTO notices (call, channel, ref, shown_version, failures, retry_at, wanted)
    VALUES (?, ?, ?, ?, ?, ?, (SELECT version FROM calls WHERE id = ?))
"""
_INSERT_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LAST_EVENTS = "SELECT * FROM (SELECT * FROM events ORDER BY seq DESC LIMIT ?) ORDER BY seq"
#: How many of the newest events are checked when the file is opened.
_TAIL = 1000


class SqliteStore:
    """See `approvals.store.Store`; made by `open`."""

    def __init__(self, file: StoreFile, connection: sqlite3.Connection, chain_key: bytes) -> None:
        self._file = file
        self._key = chain_key
        self._changes = Changes()
        self._writer = Writer(connection, before=file.still_ours, after=file.note)

    @classmethod
    async def open(cls, path: Path | str, *, chain_key: bytes = b"") -> "SqliteStore":
        """Open the file, made when there never was one; raises `StoreError` with the cause when it cannot be used."""
        file = StoreFile(Path(path))
        try:
            connection = await asyncio.to_thread(file.connect)
            store = cls(file, connection, chain_key)
        except BaseException:
            file.close()
            raise
        try:
            await store._writer.read(store._look_over)
        except BaseException:
            await store.close()
            raise
        return store

    def _look_over(self, db: sqlite3.Connection) -> None:
        """Refuse a file whose newest events or open calls are not what was written, or not under this key."""
        tail = list(map(audit.from_row, db.execute(_LAST_EVENTS, (_TAIL,))))
        if tail and (broken := audit.verify(tail, self._key, start=tail[0])):
            raise StoreError(
                f"The store {self._file.path} cannot be used: its audit event {broken.seq} is not what was written"
                f" ({broken.why}), or was written under another key."
            )
        self._calls(
            db,
            "SELECT body, seal FROM calls WHERE state IN ('pending', 'approved', 'forwarding', 'in_doubt')",
        )

    # Held calls.

    async def add(self, call: HeldCall, *events: AuditEvent) -> None:
        """Insert a call and its events."""
        row = (
            *self._changing(call),
            call.id,
            call.key,
            call.call.agent,
            call.call.server,
            call.call.tool,
            call.created_at,
        )
        trail = tuple(map(audit.entry, events))

        def work(db: sqlite3.Connection) -> None:
            try:
                db.execute(_INSERT_CALL, row)
            except sqlite3.IntegrityError as error:
                raise Conflict from error
            self._record(trail, db)

        await self._writer.do(work, then=partial(self._changes.announce, (call.id,)))

    async def swap(self, old: HeldCall, new: HeldCall, *events: AuditEvent) -> None:
        """Replace a call and add its events."""
        row = (*self._changing(new), old.id, old.version)
        trail = tuple(map(audit.entry, events))

        def work(db: sqlite3.Connection) -> None:
            if db.execute(_SWAP_CALL, row).rowcount != 1:
                raise Conflict
            self._record(trail, db)

        await self._writer.do(work, then=partial(self._changes.announce, (old.id,)))

    def _changing(self, call: HeldCall) -> tuple[Any, ...]:
        """Return the values of the columns that a swap writes."""
        try:
            body = _encode(call)
        except (TypeError, ValueError) as error:
            raise StoreError(f"The call {call.id} cannot be written: {error}.") from error
        return call.version, call.state, call.digest, call.expires_at, call.settled_at, body, self._seal(body)

    def _seal(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256") if self._key else hashlib.sha256(body).digest()

    def _calls(self, db: sqlite3.Connection, sql: str, values: Iterable[Any] = ()) -> list[HeldCall]:
        return [self._call(body, seal) for body, seal in db.execute(sql, tuple(values))]

    def _call(self, body: bytes, seal: bytes) -> HeldCall:
        if not hmac.compare_digest(seal, self._seal(body)):
            raise StoreError(
                f"A call in {self._file.path} is not what was written, or was written under another key."
            )
        return _decode(body)

    async def get(self, call_id: CallId) -> HeldCall | None:
        """Return one call."""
        return await self._one("SELECT body, seal FROM calls WHERE id = ?", call_id)

    async def find(self, key: str) -> HeldCall | None:
        """Return the newest call of a key."""
        return await self._one("SELECT body, seal FROM calls WHERE key = ? ORDER BY n DESC LIMIT 1", key)

    async def _one(self, sql: str, value: str) -> HeldCall | None:
        found = await self._writer.read(lambda db: self._calls(db, sql, (value,)))
        return found[0] if found else None

    async def select(
        self,
        states: Sequence[State] = (),
        *,
        limit: int = 200,
        before: CallId | None = None,
        tool: str = "",
        agent: str = "",
        server: str = "",
        text: str = "",
    ) -> Sequence[HeldCall]:
        """Return calls, newest first."""
        # Open calls are few and found by their state; among the many others the order of ids is the better way in.
        state = "state" if _OPEN.issuperset(states) else "+state"
        conditions: Mapping[str, Sequence[Any]] = {
            f"{state} IN ({', '.join('?' * len(states))})": states,
            "id < ?": (before,) if before is not None else (),
            "tool = ?": (tool,) if tool else (),
            "agent = ?": (agent,) if agent else (),
            "server = ?": (server,) if server else (),
            "(instr(tool, ?) OR instr(agent, ?) OR instr(id, ?))": (text,) * 3 if text else (),
        }
        where, values = _where(conditions)
        sql = f"SELECT body, seal FROM calls {where} ORDER BY id DESC LIMIT ?"  # noqa: S608  (names of ours, values bound)
        return await self._writer.read(lambda db: self._calls(db, sql, (*values, limit)))

    async def due(self, now: float) -> Sequence[HeldCall]:
        """Return calls whose time is over."""
        return await self._writer.read(lambda db: self._calls(db, _DUE, (now,)))

    def changes(self) -> AsyncIterator[CallId]:
        """Yield what changes from now on."""
        return self._changes.listen()

    # The audit trail.

    def _record(self, entries: Sequence[audit.Entry], db: sqlite3.Connection) -> None:
        if not entries:
            return
        seq, prev = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone() or (0, "")
        for entry in entries:
            row = entry.linked(seq + 1, prev, self._key)
            db.execute(_INSERT_EVENT, row)
            seq, *_, prev = row

    async def append(self, *events: AuditEvent) -> None:
        """Add events and wait for their commit."""
        await self._writer.do(partial(self._record, tuple(map(audit.entry, events))))

    def post(self, *events: AuditEvent) -> None:
        """Add events with the next commit; raises `StoreError` rather than lose one."""
        self._writer.post(partial(self._record, tuple(map(audit.entry, events))))

    async def events(
        self,
        *,
        after: int = 0,
        limit: int = 1000,
        since: float = 0.0,
        tool: str = "",
        agent: str = "",
        call: str = "",
    ) -> Sequence[AuditEvent]:
        """Return events in order."""
        conditions: Mapping[str, Sequence[Any]] = {
            "seq > ?": (after,),
            # The first bound is found by the index of times, and lets the walk begin there.
            "seq >= (SELECT min(seq) FROM events WHERE at >= ?) AND at >= ?": (since, since) if since else (),
            "tool = ?": (tool,) if tool else (),
            "agent = ?": (agent,) if agent else (),
            "call = ?": (call,) if call else (),
        }
        where, values = _where(conditions)
        sql = f"SELECT * FROM events {where} ORDER BY seq LIMIT ?"  # noqa: S608  (names of ours, values bound)
        return await self._writer.read(
            lambda db: list(map(audit.from_row, db.execute(sql, (*values, limit))))
        )

    async def checkpoint(self) -> AuditEvent | None:
        """Return the last event."""
        row = await self._writer.read(lambda db: db.execute(_LAST_EVENTS, (1,)).fetchone())
        return audit.from_row(row) if row else None

    # What channels show.

    async def stale(self, channel: str, now: float) -> Sequence[tuple[HeldCall, Notice | None]]:
        """Return what the channel does not show yet, oldest call first."""

        def work(db: sqlite3.Connection) -> list[tuple[HeldCall, Notice | None]]:
            rows = db.execute(_STALE, {"channel": channel, "now": now}).fetchall()
            return [(self._call(body, seal), _notice(row)) for _, body, seal, *row in rows]

        return await self._writer.read(work)

    async def shown(self, notice: Notice) -> None:
        """Keep what the channel shows."""
        row = (
            notice.call,
            notice.channel,
            notice.ref,
            notice.shown_version,
            notice.failures,
            notice.retry_at,
            notice.call,
        )
        await self._writer.do(lambda db: _execute(db, _SHOWN, row))

    async def notice_at(self, channel: str, ref: str) -> Notice | None:
        """Return the notice under the channel's reference."""
        sql = "SELECT * FROM notices WHERE channel = ? AND ref = ?"
        row = await self._writer.read(lambda db: db.execute(sql, (channel, ref)).fetchone())
        return _notice(row) if row else None

    # Rate limits and logins.

    def hit(self, key: str, at: float, until: float) -> None:
        """Record a use, and drop those that count no more."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM hits WHERE until <= ?", (at,))
            db.execute("INSERT INTO hits (key, at, until) VALUES (?, ?, ?)", (key, at, until))

        self._writer.post(work)

    async def hits(self, now: float) -> Sequence[tuple[str, float]]:
        """Return the uses that still count."""
        sql = "SELECT key, at FROM hits WHERE until > ? ORDER BY at, rowid"
        return await self._writer.read(lambda db: db.execute(sql, (now,)).fetchall())

    async def login(self, session: LoginSession) -> None:
        """Keep a login, and drop those that are over."""
        row = (session.id_sha256, session.approver, session.created_at, session.expires_at)

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM logins WHERE expires_at <= ?", (session.created_at,))
            db.execute("INSERT OR REPLACE INTO logins VALUES (?, ?, ?, ?)", row)

        await self._writer.do(work)

    async def logged_in(self, id_sha256: str) -> LoginSession | None:
        """Return a login."""
        sql = "SELECT id_sha256, approver, created_at, expires_at FROM logins WHERE id_sha256 = ?"
        row = await self._writer.read(lambda db: db.execute(sql, (id_sha256,)).fetchone())
        return (
            LoginSession(id_sha256=row[0], approver=row[1], created_at=row[2], expires_at=row[3])
            if row
            else None
        )

    async def logout(self, id_sha256: str) -> None:
        """Forget a login."""
        await self._writer.do(lambda db: _execute(db, "DELETE FROM logins WHERE id_sha256 = ?", (id_sha256,)))

    # The file.

    async def check(self) -> None:
        """Commit a small thing."""
        await self._writer.do(lambda db: _execute(db, "UPDATE probe SET writes = writes + 1", ()))

    async def close(self) -> None:
        """Write what was posted and let go of the file."""
        try:
            await self._writer.close()
        finally:
            self._changes.close()
            self._file.close()


def _execute(db: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> None:
    db.execute(sql, values)


def _where(conditions: Mapping[str, Sequence[Any]]) -> tuple[str, list[Any]]:
    """Return the WHERE clause of the conditions that have values, and those values."""
    given = {condition: values for condition, values in conditions.items() if values}
    clause = f"WHERE {' AND '.join(given)}" if given else ""
    return clause, [value for values in given.values() for value in values]


def _notice(row: Sequence[Any]) -> Notice | None:
    call, channel, ref, shown_version, failures, retry_at, _ = row
    if call is None:
        return None
    return Notice(
        call=call, channel=channel, ref=ref, shown_version=shown_version, failures=failures, retry_at=retry_at
    )
