"""Notices in SQLite: which version of a call, and which presence, each channel shows."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from approvals.model import Notice
from approvals.store.sqlite import statements
from approvals.store.sqlite.base import SqliteBase
from approvals.summaries import Summary


class SqliteNotices(SqliteBase):
    """See `approvals.store.NoticeStore`."""

    async def stale_calls(self, channel: str, now: float) -> Sequence[tuple[Summary, Notice | None]]:
        """Return the calls that the channel does not show as they are, oldest first."""

        def work(db: sqlite3.Connection) -> list[tuple[Summary, Notice | None]]:
            rows = db.execute(statements.STALE, {"channel": channel, "now": now})
            return [
                (self._seal.open_summary(body, seal), _notice(row) if row[0] else None)
                for _, body, seal, *row in rows
            ]

        return await self._read(work)

    async def notices_with_stale_presence(self, channel: str, now: float) -> Sequence[Notice]:
        """Return the notices of pending calls whose clients came or left, oldest call first."""
        values = {"channel": channel, "now": now}
        return await self._read(lambda db: list(map(_notice, db.execute(statements.STALE_PRESENCE, values))))

    async def save_notice(self, notice: Notice) -> None:
        """Insert or replace a notice."""
        await self._write(
            statements.SAVE_NOTICE,
            notice.call,
            notice.channel,
            notice.ref,
            notice.shown_version,
            notice.shown_attended,
            notice.failures,
            notice.retry_at,
            notice.call,
        )


def _notice(row: Sequence[Any]) -> Notice:
    call, channel, ref, shown_version, failures, retry_at, _, shown_attended = row
    return Notice(
        call=call,
        channel=channel,
        ref=ref,
        shown_version=shown_version,
        shown_attended=None if shown_attended is None else bool(shown_attended),
        failures=failures,
        retry_at=retry_at,
    )
