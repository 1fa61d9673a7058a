"""The gateway's own state in SQLite: pins, sessions, secrets, rate-limit hits, the time and the starts."""

import sqlite3
from collections.abc import Sequence
from secrets import token_bytes

from approvals import audit
from approvals.model import AgentSession, AuditEvent, Pin
from approvals.signals import SignalKind
from approvals.store import SESSION_LIFE, StartCounts
from approvals.store.sqlite import statements
from approvals.store.sqlite.logins import SqliteLogins
from approvals.store.sqlite.trail import SqliteTrail


class SqliteState(SqliteTrail, SqliteLogins):
    """See `approvals.store.StateStore`. A reset of the time is written with its events, in one commit."""

    def save_pin(self, pin: Pin) -> None:
        """Insert or replace a pin."""
        row = (pin.server, pin.tool, pin.hash, pin.definition, pin.identity)

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.SAVE_PIN, row)

        self.writer.post(work, then=self._signal(SignalKind.PIN, pin.server))

    async def pins(self) -> Sequence[Pin]:
        """Return the pins."""
        rows = await self._read(lambda db: db.execute(statements.PINS).fetchall())
        return [
            Pin(server=row[0], tool=row[1], hash=row[2], definition=row[3], identity=row[4]) for row in rows
        ]

    async def save_session(self, session: AgentSession) -> None:
        """Keep a session, and drop old ones."""
        row = self._seal.seal_row(
            "sessions", (session.server, session.id, session.agent, session.opening, session.at)
        )

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.DROP_SESSIONS, (session.at - SESSION_LIFE,))
            db.execute(statements.SAVE_SESSION, row)

        await self.writer.do(work)

    async def find_session(self, server: str, session_id: str) -> AgentSession | None:
        """Return a session."""
        found = await self._read(lambda db: db.execute(statements.SESSION, (server, session_id)).fetchone())
        row = self._seal.open_row("sessions", found)
        if row is None:
            return None
        return AgentSession(server=row[0], id=row[1], agent=row[2], opening=row[3], at=row[4])

    def delete_session(self, server: str, session_id: str) -> None:
        """Delete a session."""
        self._post(statements.DELETE_SESSION, server, session_id)

    async def secret(self, name: str) -> bytes:
        """Return the secret of this name."""

        def work(db: sqlite3.Connection) -> bytes:
            db.execute(statements.CREATE_KEY, (name, token_bytes(32)))
            found: bytes = db.execute(statements.KEY, (name,)).fetchone()[0]
            return found

        return await self.writer.do(work)

    def add_hit(self, key: str, at: float, until: float, amount: float = 1) -> None:
        """Add a hit, and drop those that have ended."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.DROP_HITS, (at,))
            db.execute(statements.INSERT_HIT, (key, at, until, amount))

        self.writer.post(work)

    async def hits(self, now: float) -> Sequence[tuple[str, float, float]]:
        """Return the hits that have not ended."""
        return await self._read(lambda db: db.execute(statements.HITS, (now,)).fetchall())

    async def highest_time(self) -> float:
        """Return the highest time so far."""
        return await self._read(lambda db: float(db.execute(statements.HIGHEST_TIME).fetchone()[0]))

    def keep_time(self, at: float) -> None:
        """Keep a time if it is the highest."""
        self._post(statements.KEEP_TIME, at)

    async def reset_time(self, at: float, *events: AuditEvent) -> None:
        """Lower the time; move back to it the later dates of hits, logins, codes and retries."""

        def work(db: sqlite3.Connection) -> None:
            for statement in statements.RESET_TIME:
                db.execute(statement, {"at": at})

        await self.writer.do(work, *map(audit.encode_event, events))

    async def start_counts(self) -> StartCounts:
        """Return the counts in the file and in `.lock`."""
        stored = await self._read(lambda db: int(db.execute(statements.STARTS).fetchone()[0]))
        return StartCounts(stored, self._file.read_notes().get("starts", ""))

    async def count_start(self) -> int:
        """Count a start: in `.lock` as coming, then in the file, then in `.lock` as done."""
        counts = await self.start_counts()
        if counts.agree:
            self._file.write_notes(starts=f"{counts.store} {counts.next}")
        await self._write(statements.COUNT_START, counts.next)
        self._file.write_notes(starts=str(counts.next))
        return counts.next

    def mark_restored(self) -> None:
        """Write a word to `.lock` that matches no count."""
        self._file.write_notes(starts="restored")
