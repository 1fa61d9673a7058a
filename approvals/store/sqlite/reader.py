"""The thread that reads the file, on a connection that cannot write: a long read delays no write.

Each read is one transaction, so all its statements see one snapshot. SQLite takes the snapshot at the first statement
(sqlite.org/isolation.html). That is after the read was asked for, so it includes every commit acknowledged before.
"""

import asyncio
import contextlib
import sqlite3
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from approvals.errors import ApprovalError, StoreError
from approvals.store.sqlite.health import Health, is_fatal, is_temporary, refuse

#: The most reads that may wait.
MAX_WAITING = 10_000

Result = TypeVar("Result")


class Reader:
    """Runs reads in its thread, in order of arrival. After a failure of the store it refuses them."""

    def __init__(self, connection: sqlite3.Connection, health: Health) -> None:
        self._db = connection
        self._health = health
        self._thread = ThreadPoolExecutor(1, "okayed-reader")
        self._waiting = 0
        self._closed = False

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run *work* and return its result; raises `StoreError` when the store cannot be read."""
        self._health.check()
        if self._closed:
            raise StoreError("The store is closed.")
        if self._waiting >= MAX_WAITING:
            raise StoreError("The store cannot keep up: too many reads are waiting. Try again later.")
        self._waiting += 1
        answer = asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, work)
        answer.add_done_callback(self._answered)
        # Shielded: a read whose caller left still has its place in the queue.
        return await asyncio.shield(answer)

    def _answered(self, _: object) -> None:
        self._waiting -= 1

    async def close(self) -> None:
        """Finish the waiting reads, then close the connection."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)
        self._db.close()

    # In the thread.

    def _attempt(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        self._health.check()
        try:
            return self._read(work)
        except ApprovalError:
            raise
        except Exception as error:
            if is_temporary(error):
                raise StoreError(f"The store could not be read ({error}). Try again later.") from error
            raise (self._health.fail(error) if is_fatal(error) else refuse(error)) from error

    def _read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        self._db.execute("BEGIN")
        try:
            return work(self._db)
        except Exception as error:
            _close_cursors(error)
            raise
        finally:
            with contextlib.suppress(sqlite3.Error):  # an error may have ended the transaction
                self._db.rollback()


def _close_cursors(error: BaseException | None) -> None:
    """Free the variables of a failed read. A cursor among them would keep its snapshot for the reads that follow."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
