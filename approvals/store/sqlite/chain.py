"""Writes audit events at the end of the chain, in the writer's thread."""

import sqlite3
from collections.abc import Sequence

from approvals.audit import EncodedEvent
from approvals.store.sqlite import statements
from approvals.store.sqlite.many_rows import insert_rows


def write_events(key: bytes, db: sqlite3.Connection, entries: Sequence[EncodedEvent]) -> None:
    """Add events after the last one."""
    if not entries:
        return
    seq, prev = db.execute(statements.LAST_LINK).fetchone() or (0, "")
    rows = []
    for entry in entries:
        seq += 1
        row = entry.to_row(seq, prev, key)
        prev = row[-1]
        rows.append(row)
    insert_rows(db, statements.INSERT_EVENT, rows)
