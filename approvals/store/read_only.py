"""Opening a store's file beside a gateway that may be using it: to read, and to change nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from approvals import audit
from approvals.errors import StoreError
from approvals.model import AuditEvent, Pin

_SQLITE = b"SQLite format 3\x00"


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a SQLite file read-only; raises `sqlite3.Error` when it is none.

    A second connection that never writes cannot hurt the one that does. Without a -wal nobody has the file open, and
    `immutable` keeps SQLite from making one that the gateway's user may then not own.
    """
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
        yield db


def pins(path: Path) -> list[Pin]:
    """Return which definitions of tools were accepted; none when there is no such file, or none that can be read."""
    with suppress(sqlite3.Error), opened(path) as db:
        rows = db.execute("SELECT server, tool, hash, definition FROM pins")
        return [Pin(server=row[0], tool=row[1], hash=row[2], definition=row[3]) for row in rows]
    return []


def events(path: Path, *, after: int = 0) -> Iterator[AuditEvent]:
    """Yield the events of an exported file or of a store's file, also beside a gateway that runs; changes nothing.

    Raises `StoreError` when the file is neither.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) != _SQLITE:
                file.seek(0)
                yield from (event for line in file if (event := audit.from_json_line(line)).seq > after)
                return
        yield from _read_table(path, after)
    except (OSError, TypeError, ValueError, msgspec.MsgspecError, sqlite3.Error) as error:
        raise StoreError(f"{path} holds no audit trail that can be read: {error}.") from error


def _read_table(path: Path, after: int) -> Iterator[AuditEvent]:
    with opened(path) as db:
        yield from map(
            audit.from_row, db.execute("SELECT * FROM events WHERE seq > ? ORDER BY seq", (after,))
        )
