"""The durable store: one SQLite file in WAL mode with `synchronous=FULL`; a thread that writes and one that reads.

Only one connection ever writes or starts a checkpoint. SQLite before 3.51.3 can corrupt the file when two connections
write or checkpoint at the same instant (sqlite.org/wal.html#walresetbug). SQLite starts a checkpoint by itself after a
commit that wrote, and when the last connection closes. The other connections are opened with `mode=ro`, so they never
commit a write, and they are closed first. Changes are published after the commit that holds them.
"""

from contextlib import ExitStack
from pathlib import Path

from approvals.errors import StoreError
from approvals.store.sqlite import statements
from approvals.store.sqlite.calls import SqliteCalls
from approvals.store.sqlite.file import StoreFile
from approvals.store.sqlite.notices import SqliteNotices
from approvals.store.sqlite.replicas import SqliteReplicas, forget_replicas
from approvals.store.sqlite.state import SqliteState


class SqliteStore(SqliteCalls, SqliteNotices, SqliteReplicas, SqliteState):
    """See `approvals.store.Store`; made by `open`."""

    @classmethod
    async def open(cls, path: Path | str, *, chain_key: bytes = b"", restored: bool = False) -> "SqliteStore":
        """Open the file, or create it if it never existed; raises `StoreError` with the cause when it cannot be used.

        *restored* accepts a file that lacks events: a copy that the operator restored.
        """
        with ExitStack() as undo:
            undo.callback((file := StoreFile(Path(path))).close)
            undo.callback((writing := file.connect(restored=restored)).close)
            reading = file.connect_reader()
            undo.pop_all()
        store = cls(writing, reading, file, chain_key)
        try:
            await store._verify()
        except BaseException as error:
            await store.close()
            if isinstance(error, StoreError):
                raise StoreError(f"The store {path} cannot be used: {error}") from error
            raise
        return store

    async def _verify(self) -> None:
        """Verify the newest events and the open calls; write the summaries that an older version did not have."""
        await self._read(self._verify_tail)
        await self._read(self._verify_open_calls)
        while await self.writer.do(self._write_missing_summaries):
            pass
        await self.writer.do(forget_replicas)

    async def check(self) -> None:
        """Commit a small change."""
        await self._write(statements.PROBE)

    async def close(self) -> None:
        """Write the posted jobs and release the file; raises `StoreError` when some could not be written."""
        self._feed.close()
        await (
            self.reader.close()
        )  # before the writer: the last connection to close writes the -wal into the file
        await self.writer.close()
