"""The connections to the file, shared by every part of the SQLite store: one writes, one reads."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

from approvals.signals import Signal, SignalKind
from approvals.store.in_flight import InFlight
from approvals.store.open_calls import OpenCalls
from approvals.store.signal_feed import SignalFeed
from approvals.store.sqlite.chain import write_events
from approvals.store.sqlite.file import StoreFile
from approvals.store.sqlite.health import Health
from approvals.store.sqlite.key_filter import KeyFilter
from approvals.store.sqlite.reader import Reader
from approvals.store.sqlite.recent_calls import RecentCalls
from approvals.store.sqlite.seal import Seal
from approvals.store.sqlite.writer import Writer

Result = TypeVar("Result")


class SqliteBase:
    """The writer thread, the reader thread, the seal and the signals."""

    def __init__(
        self, writing: sqlite3.Connection, reading: sqlite3.Connection, file: StoreFile, key: bytes
    ) -> None:
        self._key = key
        self._seal = Seal(key)
        self._file = file
        self._feed = SignalFeed()
        self._health = Health()
        self.writer = Writer(writing, file, self._health, partial(write_events, key))
        self.reader = Reader(reading, self._health)
        self._open = OpenCalls()
        self._recent = RecentCalls(self.writer)
        self._keys = KeyFilter()
        #: The ids and keys of the calls with a write in flight.
        self._in_flight = InFlight()

    def signals(self) -> AsyncIterator[Signal]:
        """Yield the signals from now on."""
        return self._feed.listen()

    def announce(self, signal: Signal) -> None:
        """Send a signal."""
        self._feed.publish(signal)

    def _signal(self, kind: SignalKind, subject: str = "") -> Callable[[], None]:
        """Return a function that sends a signal, to be called after the commit."""
        return partial(self._feed.publish, Signal(kind, subject))

    async def _read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Read one snapshot. It includes every earlier write, even one that is not acknowledged yet.

        So a call whose answer was just delivered is found as collected. A write that cannot be made now is left out.
        """
        await self.writer.flush()
        return await self.reader.read(work)

    async def _read_now(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Read one snapshot of rows that no write in flight changes."""
        return await self.reader.read(work)

    async def _read_row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        def work(db: sqlite3.Connection) -> tuple[Any, ...] | None:
            row: tuple[Any, ...] | None = db.execute(sql, values).fetchone()
            return row

        return await self._read(work)

    async def _write(self, sql: str, *values: Any) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(sql, values)

        await self.writer.do(work)

    def _post(self, sql: str, *values: Any) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(sql, values)

        self.writer.post(work)
