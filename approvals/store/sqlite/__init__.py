"""The durable store: one SQLite file, one connection, one writer thread, WAL with `synchronous=FULL`.

One connection only, since SQLite before 3.51.3 can corrupt a WAL that two connections reset. Each call is kept whole,
beside the columns it is searched by. Changes are told after the commit that holds them.
"""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from functools import partial
from math import inf
from pathlib import Path
from secrets import token_bytes
from typing import Any

from approvals import audit
from approvals.audit import Checkpoint
from approvals.errors import Conflict, StoreError
from approvals.lifecycle import latest
from approvals.model import AgentSession, AuditEvent, CallId, Cap, HeldCall, LoginSession, Notice, Pin, State
from approvals.store import ALL, SESSION_LIFE, Starts
from approvals.store.changes import Changes
from approvals.store.sqlite import statements
from approvals.store.sqlite.file import StoreFile
from approvals.store.sqlite.seal import Seal
from approvals.store.sqlite.writer import Writer
from approvals.summaries import Summary, fitting, size

#: How many of the newest events are checked when the file is opened.
TAIL = 1000
#: How many calls of before there were summaries are summed up in one commit.
AT_ONCE = 100


class SqliteStore:
    """See `approvals.store.Store`; made by `open`."""

    def __init__(self, connection: sqlite3.Connection, file: StoreFile, chain_key: bytes) -> None:
        self._key = chain_key
        self._seal = Seal(chain_key)
        self._file = file
        self._changes = Changes()
        self._writer = Writer(connection, file)

    @classmethod
    async def open(cls, path: Path | str, *, chain_key: bytes = b"", restored: bool = False) -> "SqliteStore":
        """Open the file, made when there never was one; raises `StoreError` with the cause when it cannot be used.

        *restored* takes a file that lacks events, as a copy that the operator put back.
        """
        file = StoreFile(Path(path))
        try:
            connection = file.connect(restored=restored)
        except BaseException:
            file.close()
            raise
        store = cls(connection, file, chain_key)
        try:
            await store._writer.read(store._look_over)
            while await store._writer.do(store._sum_up):
                pass
        except BaseException as error:
            await store.close()
            if isinstance(error, StoreError):
                raise StoreError(f"The store {path} cannot be used: {error}") from error
            raise
        return store

    def _look_over(self, db: sqlite3.Connection) -> None:
        """Refuse a file whose newest events or open calls are not what was written, or not under this key."""
        tail = list(map(audit.from_row, db.execute(statements.LAST_EVENTS, (TAIL,))))
        if tail and (broken := audit.verify(tail, self._key, start=tail[0])):
            raise StoreError(
                f"its audit event {broken.seq} is not what was written, or was written under another key"
                f" ({broken.why})."
            )
        for body, seal in db.execute(
            statements.OPEN_CALLS
        ):  # one after the other: together they may be large
            self._not_an_older(self._seal.call(body, seal), db)

    def _sum_up(self, db: sqlite3.Connection) -> bool:
        """Write the summaries of some calls that have none; returns whether there may be more."""
        for _ in range(AT_ONCE):
            row = db.execute(statements.WITHOUT_SUMMARY).fetchone()
            if row is None:
                return False
            n, state, agent, created_at, body, seal = row
            try:
                call = self._seal.call(body, seal)
                shown, bytes_ = self._seal.summary_row(call), size(call)
            except StoreError:  # it is not read in a list either
                shown, bytes_ = (state, b"", b""), len(body)
            db.execute(statements.INSERT_SUMMARY, (*shown, n, agent, created_at, bytes_))
        return True

    def _not_an_older(self, call: HeldCall, db: sqlite3.Connection) -> None:
        """Raise `StoreError` unless the trail says of *call* last that it is this very version.

        Only a key makes that count: a row of before bears its seal, and could be put back to run the call again.
        """
        if self._key and (call.version, call.state) != self._said_last(call.id, db):
            raise StoreError(f"The held call {call.id} is not what the audit trail says of it last.")

    def _said_last(self, call_id: CallId, db: sqlite3.Connection) -> tuple[Any, Any] | None:
        """Return the version and state of a call after its last event; None when there is none as it was written."""
        row = db.execute(statements.LAST_OF_CALL, (call_id,)).fetchone()
        if row is None or audit.verify([last := audit.from_row(row)], self._key, start=last):
            return None
        return last.detail.get("version"), last.detail.get("state")

    # Held calls.

    async def add(self, call: HeldCall, *events: AuditEvent, caps: Sequence[Cap] = ()) -> None:
        """Insert a call and its events, unless a cap is reached."""
        asked = call.call
        row = (
            *self._seal.row(call),
            call.id,
            call.key,
            asked.agent,
            asked.server,
            asked.tool,
            call.created_at,
        )
        shown, bytes_ = self._seal.summary_row(call), size(call)
        entries = tuple(map(audit.entry, events))

        def work(db: sqlite3.Connection) -> None:
            if reached := next((cap for cap in caps if _exceeded(cap, bytes_, db)), None):
                # Nothing is written of it: it may be large, and come again and again.
                there = db.execute(statements.IN_THE_WAY, (call.id, call.key)).fetchone()
                raise Conflict if there else reached.refusal
            try:
                n = db.execute(statements.INSERT_CALL, row).lastrowid
            except sqlite3.IntegrityError as error:
                raise Conflict from error
            db.execute(statements.INSERT_SUMMARY, (*shown, n, asked.agent, call.created_at, bytes_))
            db.execute(statements.REACHED, (latest(call),))
            self._record(entries, db)

        await self._writer.do(work, then=partial(self._changes.announce, (call.id,)))

    async def swap(self, old: HeldCall, new: HeldCall, *events: AuditEvent) -> None:
        """Replace a call and add its events."""
        row = (*self._seal.row(new), old.id, old.version)
        shown = (*self._seal.summary_row(new), old.id)
        entries = tuple(map(audit.entry, events))

        def work(db: sqlite3.Connection) -> None:
            if db.execute(statements.SWAP_CALL, row).rowcount != 1:
                raise Conflict
            db.execute(statements.SWAP_SUMMARY, shown)
            self._not_an_older(old, db)
            db.execute(statements.REACHED, (latest(new),))
            self._record(entries, db)

        await self._writer.do(work, then=partial(self._changes.announce, (old.id,)))

    async def get(self, call_id: CallId) -> HeldCall | None:
        """Return one call."""
        return next(iter(await self._found(statements.CALL, call_id)), None)

    async def version(self, call_id: CallId) -> int | None:
        """Return the version of a call."""
        row = await self._row(statements.VERSION, call_id)
        return None if row is None else int(row[0])

    async def find(self, key: str) -> HeldCall | None:
        """Return the newest call of a key."""
        return next(iter(await self._found(statements.NEWEST_OF_KEY, key)), None)

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
        room: float = inf,
    ) -> Sequence[HeldCall]:
        """Return calls, newest first."""
        sql, values = statements.calls(
            statements.ROWS,
            states,
            limit=limit,
            before=before,
            tool=tool,
            agent=agent,
            server=server,
            text=text,
        )

        def work(db: sqlite3.Connection) -> list[HeldCall]:
            rows = list(fitting(db.execute(sql, values), room))
            return [call for n in rows for call in self._calls(statements.CALL_OF_ROW, (n,), db)]

        return await self._writer.read(work)

    async def summaries(
        self,
        states: Sequence[State] = (),
        *,
        limit: int = ALL,
        before: CallId | None = None,
        tool: str = "",
        agent: str = "",
        server: str = "",
        text: str = "",
    ) -> Sequence[Summary]:
        """Return the summaries of calls, newest first."""
        sql, values = statements.calls(
            statements.SUMMARIES,
            states,
            limit=limit,
            before=before,
            tool=tool,
            agent=agent,
            server=server,
            text=text,
        )
        return await self._summed_up(sql, *values)

    async def due(self, now: float) -> Sequence[Summary]:
        """Return calls whose time is over."""
        return await self._summed_up(statements.DUE, now)

    async def _summed_up(self, sql: str, *values: Any) -> Sequence[Summary]:
        def work(db: sqlite3.Connection) -> list[Summary]:
            return [self._seal.summary(shown, seal) for shown, seal in db.execute(sql, values)]

        return await self._writer.read(work)

    async def _found(self, sql: str, *values: Any) -> Sequence[HeldCall]:
        return await self._writer.read(partial(self._calls, sql, values))

    def _calls(self, sql: str, values: Sequence[Any], db: sqlite3.Connection) -> list[HeldCall]:
        return [self._seal.call(body, seal) for body, seal in db.execute(sql, values)]

    def changes(self) -> AsyncIterator[CallId]:
        """Yield what changes from now on."""
        return self._changes.listen()

    # The audit trail.

    def _record(self, entries: Sequence[audit.Entry], db: sqlite3.Connection) -> None:
        seq, prev = db.execute(statements.LAST_LINK).fetchone() or (0, "")
        for entry in entries:
            row = entry.linked(seq + 1, prev, self._key)
            db.execute(statements.INSERT_EVENT, row)
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
        sql, values = statements.events(
            after=after, limit=limit, since=since, tool=tool, agent=agent, call=call
        )
        return await self._writer.read(lambda db: list(map(audit.from_row, db.execute(sql, values))))

    # What channels show.

    async def stale(self, channel: str, now: float) -> Sequence[tuple[Summary, Notice | None]]:
        """Return what the channel does not show yet, oldest call first."""

        def work(db: sqlite3.Connection) -> list[tuple[Summary, Notice | None]]:
            rows = db.execute(statements.STALE, {"channel": channel, "now": now})
            return [
                (self._seal.summary(shown, seal), _notice(row) if row[0] else None)
                for _, shown, seal, *row in rows
            ]

        return await self._writer.read(work)

    async def shown(self, notice: Notice) -> None:
        """Keep what the channel shows."""
        await self._write(
            statements.SHOWN,
            notice.call,
            notice.channel,
            notice.ref,
            notice.shown_version,
            notice.failures,
            notice.retry_at,
            notice.call,
        )

    # Rate limits and logins.

    def hit(self, key: str, at: float, until: float, amount: float = 1) -> None:
        """Record a use, and drop those that count no more."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.DROP_HITS, (at,))
            db.execute(statements.INSERT_HIT, (key, at, until, amount))

        self._writer.post(work)

    async def hits(self, now: float) -> Sequence[tuple[str, float, float]]:
        """Return the uses that still count."""
        return await self._writer.read(lambda db: db.execute(statements.HITS, (now,)).fetchall())

    # Starts.

    async def starts(self) -> Starts:
        """Return how often a gateway was started with this file."""
        counted = await self._writer.read(lambda db: int(db.execute(statements.STARTS).fetchone()[0]))
        return Starts(counted, self._file.noted().get("starts", ""))

    async def begin(self) -> int:
        """Count a start: as coming in `.lock`, then in the file, then as done in `.lock`."""
        starts = await self.starts()
        if starts.agree:
            self._file.note(starts=f"{starts.store} {starts.next}")
        await self._write(statements.STARTED, starts.next)
        self._file.note(starts=str(starts.next))
        return starts.next

    def distrust(self) -> None:
        """Put a word in `.lock` that agrees with no count."""
        self._file.note(starts="restored")

    async def head(self) -> Checkpoint | None:
        """Return the last event."""
        row = await self._row(statements.LAST_LINK)
        return None if row is None else Checkpoint(*row)

    # Time.

    async def mark(self) -> float:
        """Return the highest time that was kept."""
        return await self._writer.read(lambda db: float(db.execute(statements.MARK).fetchone()[0]))

    def reached(self, at: float) -> None:
        """Keep a time when it is the highest."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.REACHED, (at,))

        self._writer.post(work)

    async def reset_time(self, at: float, *events: AuditEvent) -> None:
        """Lower the time, and bring back to it the uses of limits, logins and retries that are dated later."""
        entries = tuple(map(audit.entry, events))

        def work(db: sqlite3.Connection) -> None:
            for statement in statements.RESET_TIME:
                db.execute(statement, {"at": at})
            self._record(entries, db)

        await self._writer.do(work)

    async def login(self, session: LoginSession) -> None:
        """Keep a login, and drop those that are over."""
        row = self._seal.sealed(
            "logins", (session.id_sha256, session.approver, session.created_at, session.expires_at)
        )

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.DROP_LOGINS, (session.created_at,))
            db.execute(statements.LOGIN, row)

        await self._writer.do(work)

    async def logged_in(self, id_sha256: str) -> LoginSession | None:
        """Return a login."""
        row = self._seal.opened("logins", await self._row(statements.LOGGED_IN, id_sha256))
        if row is None:
            return None
        return LoginSession(id_sha256=row[0], approver=row[1], created_at=row[2], expires_at=row[3])

    async def logout(self, id_sha256: str) -> None:
        """Forget a login."""
        await self._write(statements.LOGOUT, id_sha256)

    async def secret(self, name: str) -> bytes:
        """Return the bytes of this name."""

        def work(db: sqlite3.Connection) -> bytes:
            db.execute(statements.MAKE_BYTES, (name, token_bytes(32)))
            found: bytes = db.execute(statements.BYTES, (name,)).fetchone()[0]
            return found

        return await self._writer.do(work)

    def pin(self, pin: Pin) -> None:
        """Keep a pin."""
        row = (pin.server, pin.tool, pin.hash, pin.definition, pin.identity)

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.PIN, row)

        self._writer.post(work)

    async def pins(self) -> Sequence[Pin]:
        """Return the pins."""
        rows = await self._writer.read(lambda db: db.execute(statements.PINS).fetchall())
        return [
            Pin(server=row[0], tool=row[1], hash=row[2], definition=row[3], identity=row[4]) for row in rows
        ]

    # Agents' sessions.

    async def remember(self, session: AgentSession) -> None:
        """Keep a session, and drop those that are old."""
        row = self._seal.sealed(
            "sessions", (session.server, session.id, session.agent, session.opening, session.at)
        )

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.DROP_SESSIONS, (session.at - SESSION_LIFE,))
            db.execute(statements.REMEMBER, row)

        await self._writer.do(work)

    async def recall(self, server: str, session_id: str) -> AgentSession | None:
        """Return a session."""
        row = self._seal.opened("sessions", await self._row(statements.RECALL, server, session_id))
        if row is None:
            return None
        return AgentSession(server=row[0], id=row[1], agent=row[2], opening=row[3], at=row[4])

    def forget(self, server: str, session_id: str) -> None:
        """Forget a session."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.FORGET, (server, session_id))

        self._writer.post(work)

    # The file.

    async def check(self) -> None:
        """Commit a small thing."""
        await self._write(statements.PROBE)

    async def close(self) -> None:
        """Write what was posted and let go of the file; raises `StoreError` when some could not be written."""
        self._changes.close()
        await self._writer.close()

    async def _row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        def work(db: sqlite3.Connection) -> tuple[Any, ...] | None:
            row: tuple[Any, ...] | None = db.execute(sql, values).fetchone()
            return row

        return await self._writer.read(work)

    async def _write(self, sql: str, *values: Any) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(sql, values)

        await self._writer.do(work)


def _exceeded(cap: Cap, bytes_: int, db: sqlite3.Connection) -> bool:
    """Say whether one more call, of so many bytes, exceeds a cap."""
    sql, values = statements.counted(cap)
    there = int(db.execute(sql, values).fetchone()[0])
    return there + (bytes_ if cap.in_bytes else 1) > cap.most


def _notice(row: Sequence[Any]) -> Notice:
    call, channel, ref, shown_version, failures, retry_at, _ = row
    return Notice(
        call=call,
        channel=channel,
        ref=ref,
        shown_version=shown_version,
        failures=failures,
        retry_at=retry_at,
    )
