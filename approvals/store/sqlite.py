"""The durable store: one SQLite file, one connection, one writer thread, WAL with `synchronous=FULL`.

One connection only, since SQLite before 3.51.3 can corrupt a WAL that two connections reset; a lock on a file beside
it keeps a second gateway out. Every answer to a change is given after the commit that holds it.
"""

import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from approvals import audit
from approvals.errors import Conflict, StoreError
from approvals.lifecycle import SETTLED, TIMED
from approvals.model import AuditEvent, CallId, HeldCall, LoginSession, Notice, State
from approvals.store import schema
from approvals.store._writer import Writer
from approvals.store.changes import Changes

_encode = msgspec.json.encode
_call = msgspec.json.Decoder(HeldCall).decode
_PRAGMAS = (
    "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON", "PRAGMA trusted_schema=OFF",
    "PRAGMA busy_timeout=5000",
)  # fmt: skip
_INSERT_EVENT = "INSERT INTO events (seq, at, kind, call, agent, tool, value) VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_CALL = """INSERT INTO calls (key, agent, server, tool, version, state, expires_at, value, id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_UPDATE_CALL = "UPDATE calls SET version=?, state=?, expires_at=?, value=? WHERE id=? AND version=? AND state=?"
_DONE = tuple(state for state in SETTLED if state is not State.IN_DOUBT)
_STALE = f"""SELECT c.value, n.call, n.channel, n.ref, n.shown_version, n.failures, n.retry_at
    FROM calls c LEFT JOIN notices n ON n.call = c.id AND n.channel = ?
    WHERE (n.call IS NULL AND c.state NOT IN ({', '.join('?' * len(_DONE))}))
       OR (n.shown_version < c.version AND n.retry_at <= ?) ORDER BY c.id"""


class SqliteStore:
    """See `approvals.store.Store`."""

    def __init__(self, connection: sqlite3.Connection, lock: BinaryIO, chain_key: bytes) -> None:
        self._connection = connection
        self._lock = lock
        self._chain_key = chain_key
        self._last = _last_event(connection)
        self._changes = Changes()
        self._writer = Writer(connection, self._changes.announce)

    @classmethod
    async def open(cls, path: Path | str, *, chain_key: bytes = b"") -> "SqliteStore":
        """Open the file, made when it is missing; raises `StoreError` when it cannot be used."""
        file = Path(path)
        if not file.parent.is_dir():
            raise StoreError(f"There is no folder {file.parent} for the store; make it first.")
        lock = _locked(file)
        try:
            return cls(_connected(file), lock, chain_key)
        except BaseException:
            lock.close()
            raise

    async def add(self, call: HeldCall, *events: AuditEvent) -> None:
        def work(db: sqlite3.Connection) -> None:
            about = (call.key, call.call.agent, call.call.server, call.call.tool)
            try:
                db.execute(_INSERT_CALL, (*about, *_columns(call)))
            except sqlite3.IntegrityError as error:
                raise Conflict from error
            self._link(db, events)

        await self._writer.do(work, changes=call.id)

    async def swap(self, old: HeldCall, new: HeldCall, *events: AuditEvent) -> None:
        def work(db: sqlite3.Connection) -> None:
            if db.execute(_UPDATE_CALL, (*_columns(new), old.version, old.state)).rowcount != 1:
                raise Conflict
            self._link(db, events)

        await self._writer.do(work, changes=new.id)

    def _link(self, db: sqlite3.Connection, events: Sequence[AuditEvent]) -> None:
        """Add events to the chain. Nothing after this fails but a commit, and then the store takes no more work."""
        for event in events:
            self._last = linked = audit.link(event, self._last, self._chain_key)
            about = (linked.seq, linked.at, linked.kind, linked.call, linked.agent, linked.tool)
            db.execute(_INSERT_EVENT, (*about, audit.to_json_line(linked)))

    async def append(self, *events: AuditEvent) -> None:
        await self._writer.do(lambda db: self._link(db, events))

    def post(self, *events: AuditEvent) -> None:
        self._writer.post(lambda db: self._link(db, events))

    async def get(self, call_id: CallId) -> HeldCall | None:
        found = await self._calls("SELECT value FROM calls WHERE id=?", call_id)
        return found[0] if found else None

    async def find(self, key: str) -> HeldCall | None:
        found = await self._calls("SELECT value FROM calls WHERE key=? ORDER BY id DESC LIMIT 1", key)
        return found[0] if found else None

    async def select(
        self, states: Sequence[State] = (), *, limit: int = 200, before: CallId | None = None, tool: str = "", agent: str = "",
        server: str = "", text: str = "",
    ) -> Sequence[HeldCall]:  # fmt: skip
        wanted = _Where()
        wanted.one_of("state", states)
        wanted.given("id < ?", before)
        wanted.given("tool = ?", tool)
        wanted.given("agent = ?", agent)
        wanted.given("server = ?", server)
        wanted.given("instr(tool || char(10) || agent || char(10) || id, ?)", text)
        return await self._calls(f"SELECT value FROM calls {wanted} ORDER BY id DESC LIMIT ?", *wanted.values, limit)

    async def due(self, now: float) -> Sequence[HeldCall]:
        wanted = _Where()
        wanted.one_of("state", sorted(TIMED))
        wanted.given("expires_at <= ?", now)
        return await self._calls(f"SELECT value FROM calls {wanted} ORDER BY id", *wanted.values)

    async def _calls(self, sql: str, *values: Any) -> list[HeldCall]:
        rows = await self._writer.do(lambda db: db.execute(sql, values).fetchall())
        return [_call(value) for (value,) in rows]

    async def events(
        self, *, after: int = 0, limit: int = 1000, since: float = 0.0, tool: str = "", agent: str = "", call: str = "",
    ) -> Sequence[AuditEvent]:  # fmt: skip
        wanted = _Where()
        wanted.given("seq > ?", after)
        wanted.given("at >= ?", since)
        wanted.given("tool = ?", tool)
        wanted.given("agent = ?", agent)
        wanted.given("call = ?", call)
        sql = f"SELECT value FROM events {wanted} ORDER BY seq LIMIT ?"
        rows = await self._writer.do(lambda db: db.execute(sql, (*wanted.values, limit)).fetchall())
        return [audit.from_json_line(value) for (value,) in rows]

    async def checkpoint(self) -> AuditEvent | None:
        return await self._writer.do(_last_event)

    async def stale(self, channel: str, now: float) -> Sequence[tuple[HeldCall, Notice | None]]:
        values = (channel, *_DONE, now)
        rows = await self._writer.do(lambda db: db.execute(_STALE, values).fetchall())
        return [(_call(value), _notice(*columns)) for value, *columns in rows]

    async def shown(self, notice: Notice) -> None:
        values = (notice.call, notice.channel, notice.ref, notice.shown_version, notice.failures, notice.retry_at)
        await self._writer.do(lambda db: _run(db, "INSERT OR REPLACE INTO notices VALUES (?, ?, ?, ?, ?, ?)", values))

    async def notice_at(self, channel: str, ref: str) -> Notice | None:
        sql = "SELECT call, channel, ref, shown_version, failures, retry_at FROM notices WHERE channel=? AND ref=?"
        row = await self._writer.do(lambda db: db.execute(sql, (channel, ref)).fetchone())
        return _notice(*row) if row else None

    def hit(self, key: str, at: float, until: float) -> None:
        self._writer.post(lambda db: _run(db, "INSERT INTO hits VALUES (?, ?, ?)", (key, at, until)))

    async def hits(self, now: float) -> Sequence[tuple[str, float]]:
        def work(db: sqlite3.Connection) -> list[tuple[str, float]]:
            db.execute("DELETE FROM hits WHERE until <= ?", (now,))
            return db.execute("SELECT key, at FROM hits ORDER BY at").fetchall()

        return await self._writer.do(work)

    async def login(self, session: LoginSession) -> None:
        values = (session.id_sha256, session.approver, session.created_at, session.expires_at)
        await self._writer.do(lambda db: _run(db, "INSERT OR REPLACE INTO logins VALUES (?, ?, ?, ?)", values))

    async def logged_in(self, id_sha256: str) -> LoginSession | None:
        sql = "SELECT id_sha256, approver, created_at, expires_at FROM logins WHERE id_sha256=?"
        row = await self._writer.do(lambda db: db.execute(sql, (id_sha256,)).fetchone())
        return LoginSession(id_sha256=row[0], approver=row[1], created_at=row[2], expires_at=row[3]) if row else None

    async def logout(self, id_sha256: str) -> None:
        await self._writer.do(lambda db: _run(db, "DELETE FROM logins WHERE id_sha256=?", (id_sha256,)))

    def changes(self) -> AsyncIterator[CallId]:
        return self._changes.listen()

    async def check(self) -> None:
        await self._writer.do(lambda db: _run(db, "SELECT 1", ()))

    async def close(self) -> None:
        self._changes.close()
        await self._writer.close()
        self._connection.close()
        self._lock.close()


class _Where:
    """The WHERE of a query, from what is given."""

    def __init__(self) -> None:
        self._tests: list[str] = []
        self.values: list[Any] = []

    def given(self, test: str, value: Any) -> None:
        """Add a test unless its value is missing."""
        if value not in (None, ""):
            self._tests.append(test)
            self.values.append(value)

    def one_of(self, column: str, values: Sequence[str]) -> None:
        """Add a test that the column holds one of *values*, unless there are none."""
        if values:
            self._tests.append(f"{column} IN ({', '.join('?' * len(values))})")
            self.values += values

    def __str__(self) -> str:
        return f"WHERE {' AND '.join(self._tests)}" if self._tests else ""


def _columns(call: HeldCall) -> tuple[Any, ...]:
    return (call.version, call.state, call.expires_at, _encode(call), call.id)


def _notice(call: str | None, channel: str, ref: str | None, shown: int, failures: int, retry_at: float) -> Notice | None:
    if call is None:
        return None
    return Notice(call=CallId(call), channel=channel, ref=ref, shown_version=shown, failures=failures, retry_at=retry_at)


def _run(db: sqlite3.Connection, sql: str, values: Sequence[Any]) -> None:
    db.execute(sql, values)


def _last_event(db: sqlite3.Connection) -> AuditEvent | None:
    row = db.execute("SELECT value FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return audit.from_json_line(row[0]) if row else None


def _locked(file: Path) -> BinaryIO:
    """Take the lock that keeps a second gateway out, for as long as this process lives."""
    lock = open(os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StoreError(f"Another gateway uses {file} already; stop it, or give this one a store of its own.") from error
    return lock


def _connected(file: Path) -> sqlite3.Connection:
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        _check(connection, file)
        schema.migrate(connection)
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"{file} cannot be used as a store: {error}.") from error
    except StoreError:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, file: Path) -> None:
    if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise StoreError(f"{file} is damaged ({found}); restore it from a backup.")
    if newer := schema.unknown(connection):
        raise StoreError(f"{file} was written by a newer version ({', '.join(newer)}); use that one.")
