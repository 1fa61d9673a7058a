"""One connection to the file, shared by every part of the SQLite store."""

import sqlite3
from typing import Any

from approvals.store.change_feed import ChangeFeed
from approvals.store.sqlite.file import StoreFile
from approvals.store.sqlite.seal import Seal
from approvals.store.sqlite.writer import Writer


class SqliteBase:
    """The writer thread, the seal and the change feed."""

    def __init__(self, connection: sqlite3.Connection, file: StoreFile, chain_key: bytes) -> None:
        self._key = chain_key
        self._seal = Seal(chain_key)
        self._file = file
        self._changes = ChangeFeed()
        self.writer = Writer(connection, file)

    async def _read_row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        def work(db: sqlite3.Connection) -> tuple[Any, ...] | None:
            row: tuple[Any, ...] | None = db.execute(sql, values).fetchone()
            return row

        return await self.writer.read(work)

    async def _write(self, sql: str, *values: Any) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(sql, values)

        await self.writer.do(work)

    def _post(self, sql: str, *values: Any) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(sql, values)

        self.writer.post(work)
