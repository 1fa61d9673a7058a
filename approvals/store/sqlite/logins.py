"""Logins to the inbox and one-time codes in SQLite."""

import sqlite3
from typing import Any

from approvals.model import LoginSession, OneTimeCode
from approvals.signals import SignalKind
from approvals.store.sqlite import statements
from approvals.store.sqlite.base import SqliteBase


class SqliteLogins(SqliteBase):
    """See `approvals.store.LoginStore`."""

    async def save_login(self, session: LoginSession) -> None:
        """Keep a login, and drop expired ones."""
        # `seen_at` is not sealed: a login of an older version keeps its seal, and activity is written without one.
        # It opens nothing without the cookie's secret, and the session still ends at the sealed `expires_at`.
        row = self._seal.seal_row(
            "logins", (session.id_sha256, session.approver, session.created_at, session.expires_at)
        )

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.DROP_LOGINS, (session.created_at,))
            db.execute(statements.SAVE_LOGIN, (*row, session.seen_at))

        await self.writer.do(work)

    async def find_login(self, id_sha256: str) -> LoginSession | None:
        """Return a login."""
        found = await self._read_row(statements.LOGIN, id_sha256)
        if found is None:
            return None
        *sealed, seen_at = found
        row = self._seal.open_row("logins", tuple(sealed))
        if row is None:
            return None
        return LoginSession(
            id_sha256=row[0], approver=row[1], created_at=row[2], expires_at=row[3], seen_at=seen_at
        )

    def record_activity(self, id_sha256: str, at: float) -> None:
        """Set the last activity of a login, if it is later."""
        self._post(statements.RECORD_ACTIVITY, at, id_sha256)

    async def delete_login(self, id_sha256: str) -> None:
        """Delete a login."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.DELETE_LOGIN, (id_sha256,))

        await self.writer.do(work, then=self._signal(SignalKind.LOGOUT, id_sha256))

    async def save_code(self, code: OneTimeCode) -> None:
        """Keep a code, and drop expired ones."""
        row = self._seal.seal_row("codes", (code.id_sha256, code.approver, code.created_at, code.expires_at))

        def work(db: sqlite3.Connection) -> None:
            db.execute(statements.DROP_CODES, (code.created_at,))
            db.execute(statements.SAVE_CODE, row)

        await self.writer.do(work)

    async def take_code(self, id_sha256: str) -> OneTimeCode | None:
        """Read and delete a code in one commit."""

        def work(db: sqlite3.Connection) -> tuple[Any, ...] | None:
            found: tuple[Any, ...] | None = db.execute(statements.CODE, (id_sha256,)).fetchone()
            db.execute(statements.DELETE_CODE, (id_sha256,))
            return found

        row = self._seal.open_row("codes", await self.writer.do(work))
        if row is None:
            return None
        return OneTimeCode(id_sha256=row[0], approver=row[1], created_at=row[2], expires_at=row[3])
