"""Reads a store's file without changing it, even while a gateway uses it."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Unpack

import msgspec

from approvals import audit
from approvals.audit import Checkpoint
from approvals.errors import StoreError
from approvals.model import AuditEvent, Pin
from approvals.store.event_pages import EventFilter, EventPage
from approvals.store.sqlite import statements
from approvals.store.sqlite.event_search import search_events

_SQLITE = b"SQLite format 3\x00"


class ReadOnlyStore:
    """The trail and the pins of a file that another process may be writing: a `TrailReader` and a `PinReader`.

    Each method opens the file and closes it again, so it sees the newest commit.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def events(self, *, after: int = 0, limit: int = 1000, call: str = "") -> Sequence[AuditEvent]:
        """Return the events in order; raises `StoreError` when the file has no readable trail."""
        sql, values = statements.events(after, limit, call)
        with _readable(self._path), open_read_only(self._path) as db:
            return list(map(audit.from_row, db.execute(sql, values)))

    async def search_events(
        self, *, after: int = 0, limit: int = 1000, **matching: Unpack[EventFilter]
    ) -> EventPage:
        """Return a page of the matching events; raises `StoreError` when the file has no readable trail."""
        with _readable(self._path), open_read_only(self._path) as db:
            return search_events(db, after, limit, matching)

    async def head(self) -> Checkpoint | None:
        """Return the last event; raises `StoreError` when the file has no readable trail."""
        with _readable(self._path), open_read_only(self._path) as db:
            row = db.execute(statements.LAST_LINK).fetchone()
            return None if row is None else Checkpoint(*row)

    async def pins(self) -> Sequence[Pin]:
        """Return the pins without their servers' identities; an empty list if the file does not exist or cannot be read."""
        with suppress(sqlite3.Error), open_read_only(self._path) as db:
            # The file of an older version has no column `identity`.
            rows = db.execute("SELECT server, tool, hash, definition FROM pins")
            return [Pin(server=row[0], tool=row[1], hash=row[2], definition=row[3]) for row in rows]
        return []


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a SQLite file read-only; raises `sqlite3.Error` for any other file.

    A second connection that never writes cannot harm the first. Without a -wal no process has the file open; `immutable`
    then keeps SQLite from creating one, which the gateway's user might not own.
    """
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
        yield db


def read_trail(path: Path, *, after: int = 0) -> Iterator[AuditEvent]:
    """Yield the events of an export or of a store's file, in order; raises `StoreError` when the file is neither."""
    with _readable(path):
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) != _SQLITE:
                file.seek(0)
                yield from (event for line in file if (event := audit.from_json_line(line)).seq > after)
                return
        with open_read_only(path) as db:
            yield from map(
                audit.from_row, db.execute("SELECT * FROM events WHERE seq > ? ORDER BY seq", (after,))
            )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, TypeError, ValueError, msgspec.MsgspecError, sqlite3.Error) as error:
        raise StoreError(f"{path} has no readable audit trail: {error}.") from error
