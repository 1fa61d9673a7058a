"""Lists of held calls in SQLite. Their cost does not depend on how many calls have ended."""

import sqlite3
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Unpack

from approvals.lifecycle import OPEN
from approvals.model import HeldCall, State
from approvals.store.call_lists import MAX_SEARCHED, CallFilter, Page, split_filter
from approvals.store.sqlite import statements
from approvals.store.sqlite.base import SqliteBase
from approvals.summaries import Summary, limit_size

Row = tuple[Any, ...]


class SqliteLists(SqliteBase):
    """See `approvals.store.CallStore`. Every list is read from the table `summaries`, by one index."""

    async def select(
        self,
        states: Sequence[State] = (),
        *,
        limit: int = 200,
        room: float = inf,
        **matching: Unpack[CallFilter],
    ) -> Page[HeldCall]:
        """Return a page of calls."""

        def work(db: sqlite3.Connection) -> Page[HeldCall]:
            rows = _read_page(statements.SIZES, states, matching, limit, db)
            taken = list(limit_size(((row, row[2]) for row in rows.items), room))
            bodies = (db.execute(statements.CALL_OF_ROW, (n,)).fetchone() for n, *_ in taken)
            cut = len(taken) < len(rows.items)
            return Page([self._seal.open_call(*body) for body in bodies], taken[-1][1] if cut else rows.next)

        return await self._read(work)

    async def summaries(
        self, states: Sequence[State] = (), *, limit: int = 200, **matching: Unpack[CallFilter]
    ) -> Page[Summary]:
        """Return a page of summaries."""

        def work(db: sqlite3.Connection) -> Page[Summary]:
            rows = _read_page(statements.SUMMARIES, states, matching, limit, db)
            return Page([self._seal.open_summary(*columns) for _, _, *columns in rows.items], rows.next)

        return await self._read(work)

    async def open_summaries(self, *, server: str = "", tool: str = "") -> Sequence[Summary]:
        """Return the summaries of the open calls."""
        _, row_filters = split_filter(OPEN, {"server": server, "tool": tool})
        sql, values = statements.calls(statements.SUMMARIES, OPEN, {}, row_filters, limit=statements.ALL)
        return await self._find_summaries(sql, values)

    async def _find_summaries(self, sql: str, values: statements.Values) -> Sequence[Summary]:
        def work(db: sqlite3.Connection) -> list[Summary]:
            return [self._seal.open_summary(*columns) for _, _, *columns in db.execute(sql, values)]

        return await self._read(work)


def _read_page(
    read: str, states: Sequence[State], matching: CallFilter, limit: int, db: sqlite3.Connection
) -> Page[Row]:
    """Return a page of rows that begin with the row number and the id of a call."""
    index_filters, row_filters = split_filter(states, matching)
    oldest = _find_oldest(states, index_filters, db) if row_filters else 0
    sql, values = statements.calls(read, states, index_filters, row_filters, limit=limit + 1, oldest=oldest)
    rows = db.execute(sql, values).fetchall()
    if len(rows) > limit:
        return Page(rows[:limit], rows[limit - 1][1])
    return Page(rows, db.execute(statements.ID_OF_ROW, (oldest,)).fetchone()[0] if oldest else None)


def _find_oldest(states: Sequence[State], index_filters: Mapping[str, Any], db: sqlite3.Connection) -> int:
    """Return the row number of the oldest call that a page looks at; 0 when it looks at all."""
    sql, values = statements.calls(
        statements.NUMBERS, states, index_filters, {}, limit=2, skip=MAX_SEARCHED - 1
    )
    rows = db.execute(sql, values).fetchall()
    return int(rows[0][0]) if len(rows) > 1 else 0
