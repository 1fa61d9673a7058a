"""Inserts many rows in few statements: each statement lets another thread take the interpreter, and waits to get it back."""

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

#: The most rows of one statement; its values stay far below SQLite's limit (sqlite.org/limits.html, 32,766). A prepared
#: statement of this size takes 2 MB. With 64 rows, an allowed call took 5 to 10 us more in passing the interpreter.
MAX_ROWS = 512


def insert_rows(db: sqlite3.Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Insert *rows* with *sql*, an INSERT of one row that ends with `VALUES (?, ...)`."""
    start = 0
    while start < len(rows):
        # Powers of two, so that few statements are prepared.
        count = min(MAX_ROWS, 1 << (len(rows) - start).bit_length() - 1)
        db.execute(_repeat_values(sql, count), tuple(chain.from_iterable(rows[start : start + count])))
        start += count


@cache
def _repeat_values(sql: str, count: int) -> str:
    before, values = sql.rsplit("VALUES", 1)
    return f"{before}VALUES {', '.join([values.strip()] * count)}"
