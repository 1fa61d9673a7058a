"""Searches the audit trail, on any connection to the file."""

import sqlite3

from approvals import audit
from approvals.store.event_pages import EventFilter, EventPage, build_page, find_page_end
from approvals.store.sqlite import statements


def search_events(db: sqlite3.Connection, after: int, limit: int, matching: EventFilter) -> EventPage:
    """Return a page of the matching events after event *after*."""
    last = db.execute(statements.LAST_LINK).fetchone()
    if last is None:
        return build_page([], limit, after, after)
    start = _find_start(db, after, last[0], matching.get("since", 0.0))
    end = find_page_end(start, last[0], matching)
    sql, values = statements.event_search(start, end, limit, **matching)
    return build_page(list(map(audit.from_row, db.execute(sql, values))), limit, end, last[0])


def _find_start(db: sqlite3.Connection, after: int, last: int, since: float) -> int:
    """Return the number of the event before the first one after *after* that may match *since*."""
    if not since:
        return after
    start = db.execute(statements.BEFORE_TIME, {"after": after, "since": since}).fetchone()[0]
    return max(after, last if start is None else start)
