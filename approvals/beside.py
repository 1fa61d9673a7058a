"""Opening a store's file beside a gateway that may be using it: to read, and to change nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from approvals.model import Pin


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
