"""The durable store: one SQLite file in WAL mode with `synchronous=FULL`, a writer thread and a reader thread.

Only one connection ever writes or starts a checkpoint. SQLite before 3.51.3 can corrupt the file when two connections
write or checkpoint at the same instant (sqlite.org/wal.html#walresetbug). SQLite starts a checkpoint by itself after a
commit that wrote, and when the last connection closes. The other connections are opened with `mode=ro`, so they never
commit a write, and they are closed first. Changes are published after the commit that holds them.
"""

import asyncio
from contextlib import ExitStack
from pathlib import Path

from approvals.errors import StoreError
from approvals.store.sqlite import statements
from approvals.store.sqlite.background_check import BackgroundCheck
from approvals.store.sqlite.calls import SqliteCalls
from approvals.store.sqlite.file import MAX_CHECKED_AT_START, StoreFile
from approvals.store.sqlite.notices import SqliteNotices
from approvals.store.sqlite.replicas import SqliteReplicas, forget_replicas
from approvals.store.sqlite.state import SqliteState


class SqliteStore(SqliteCalls, SqliteNotices, SqliteReplicas, SqliteState):
    """See `approvals.store.Store`; made by `open`."""

    _page_check: BackgroundCheck | None = None
    _filling: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: Path | str,
        *,
        chain_key: bytes = b"",
        restored: bool = False,
        max_checked_at_start: int = MAX_CHECKED_AT_START,
    ) -> "SqliteStore":
        """Open the file, or create it if it never existed; raises `StoreError` with the cause when it cannot be used.

        *restored* accepts a file that lacks events: a copy that the operator restored. A file of at most *max_checked_at_start*
        bytes is checked before it is used. A larger file is checked in the background, unless the last stop was clean.
        """
        with ExitStack() as undo:
            undo.callback((file := StoreFile(Path(path))).close)
            undo.callback(
                (writing := file.connect(restored=restored, max_checked_at_start=max_checked_at_start)).close
            )
            reading = file.connect_reader()
            undo.pop_all()
        store = cls(writing, reading, file, chain_key)
        try:
            await store._verify()
            store._check_in_background()
            store._filling = asyncio.get_running_loop().create_task(store._fill_key_filter())
        except BaseException as error:
            file.is_intact = False
            await store.close()
            if isinstance(error, StoreError):
                raise StoreError(f"The store {path} cannot be used: {error}") from error
            raise
        return store

    async def _verify(self) -> None:
        """Verify the newest events and the open calls; write the summaries that an older version did not have."""
        await self._read(self._verify_tail)
        self._open.load(await self._read(self._verify_open_calls))
        while await self.writer.do(self._write_missing_summaries):
            pass
        await self.writer.do(forget_replicas)

    def _check_in_background(self) -> None:
        if not self._file.is_intact:
            self._page_check = BackgroundCheck(self._file, self._health)

    async def check(self) -> None:
        """Commit a small change."""
        await self._write(statements.PROBE)

    async def close(self) -> None:
        """Write the posted jobs and release the file; raises `StoreError` when some could not be written."""
        self._feed.close()
        if self._filling is not None:
            self._filling.cancel()
        # The writer's connection closes last: SQLite then writes the -wal into the file and removes it.
        if self._page_check is not None:
            await self._page_check.close()
        await self.reader.close()
        await self.writer.close()
