"""The audit trail in SQLite."""

import sqlite3
from collections.abc import Sequence
from typing import Any, Unpack

from approvals import audit
from approvals.audit import Checkpoint
from approvals.errors import StoreError
from approvals.model import AuditEvent, CallId
from approvals.store.event_pages import EventFilter, EventPage
from approvals.store.sqlite import statements
from approvals.store.sqlite.base import SqliteBase
from approvals.store.sqlite.event_search import search_events

#: How many of the newest events are verified when the file is opened.
TAIL = 1000


class SqliteTrail(SqliteBase):
    """See `approvals.store.TrailStore`."""

    async def append(self, *events: AuditEvent) -> None:
        """Add events and wait for their commit."""
        await self.writer.append(*map(audit.encode_event, events))

    def post(self, *events: AuditEvent) -> None:
        """Add events with the next commit; raises `StoreError` rather than lose one."""
        self.writer.post_events(*map(audit.encode_event, events))

    def post_entry(self, entry: audit.EncodedEvent) -> None:
        """Add an encoded event with one of the next commits; raises `StoreError` rather than lose it."""
        self.writer.post_events(entry)

    async def events(self, *, after: int = 0, limit: int = 1000, call: str = "") -> Sequence[AuditEvent]:
        """Return the events in order."""
        sql, values = statements.events(after, limit, call)
        return await self._read(lambda db: list(map(audit.from_row, db.execute(sql, values))))

    async def search_events(
        self, *, after: int = 0, limit: int = 1000, **matching: Unpack[EventFilter]
    ) -> EventPage:
        """Return a page of the matching events in order."""
        return await self._read(lambda db: search_events(db, after, limit, matching))

    async def head(self) -> Checkpoint | None:
        """Return the last event."""
        row = await self._read(lambda db: db.execute(statements.LAST_LINK).fetchone())
        return None if row is None else Checkpoint(*row)

    # In the threads of the reader and the writer.

    def _verify_tail(self, db: sqlite3.Connection) -> None:
        """Raise `StoreError` unless the newest events are as written, under this key."""
        tail = list(map(audit.from_row, db.execute(statements.LAST_EVENTS, (TAIL,))))
        if tail and (broken := audit.verify(tail, self._key, start=tail[0])):
            raise StoreError(
                f"its audit event {broken.seq} was changed, or was written under another key ({broken.why})."
            )

    def _last_state(self, call_id: CallId, db: sqlite3.Connection) -> tuple[Any, Any] | None:
        return read_last_state(call_id, db, self._key)


def read_last_state(call_id: CallId, db: sqlite3.Connection, key: bytes) -> tuple[Any, Any] | None:
    """Return the version and state in the last event of a call; None when that event is missing or was changed."""
    row = db.execute(statements.LAST_OF_CALL, (call_id,)).fetchone()
    if row is None or audit.verify([last := audit.from_row(row)], key, start=last):
        return None
    return last.detail.get("version"), last.detail.get("state")
