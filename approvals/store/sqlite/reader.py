"""The thread that reads the file, on a connection that cannot write: a long read delays no write.

The reads that one turn of the event loop asks for reach the thread together. They share one transaction, so all their
statements see one snapshot. SQLite takes the snapshot at the first statement (sqlite.org/isolation.html). That is after
the reads were asked for, so it includes every commit acknowledged before.
"""

import asyncio
import contextlib
import sqlite3
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from approvals.errors import ApprovalError, StoreError
from approvals.store.sqlite.health import Health, is_fatal, is_temporary, refuse

#: The most reads that may wait.
MAX_WAITING = 10_000

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


@dataclass(slots=True, eq=False)
class _Read:
    """A read and its result."""

    work: Work[Any]
    future: "asyncio.Future[Any]"
    result: Any = None
    error: Exception | None = None


class Reader:
    """Runs reads in its thread, in order of arrival. After a failure of the store it refuses them."""

    def __init__(self, connection: sqlite3.Connection, health: Health) -> None:
        self._db = connection
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[list[_Read] | None] = SimpleQueue()
        #: The reads of this turn of the loop.
        self._turn: list[_Read] = []
        self._waiting = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="okayed-reader", daemon=True)
        self._thread.start()

    async def read(self, work: Work[Result]) -> Result:
        """Run *work* and return its result; raises `StoreError` when the store cannot be read."""
        self.check()
        if self._waiting >= MAX_WAITING:
            raise StoreError("The store cannot keep up: too many reads are waiting. Try again later.")
        self._waiting += 1
        if not self._turn:
            self._loop.call_soon(self._send)
        future: asyncio.Future[Result] = self._loop.create_future()
        self._turn.append(_Read(work, future))
        try:
            return await future
        finally:  # a traceback keeps this frame, and must not keep what was read
            del future

    def check(self) -> None:
        """Raise `StoreError` when the store cannot be read."""
        self._health.check()
        if self._closed:
            raise StoreError("The store is closed.")

    def _send(self) -> None:
        if self._turn:
            self._queue.put(self._turn)
            self._turn = []

    async def close(self) -> None:
        """Finish the waiting reads, then close the connection."""
        self._closed = True
        self._send()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # let the loop deliver the last answers
        self._db.close()

    def _answer(self, reads: list[_Read]) -> None:
        for read in reads:
            self._waiting -= 1  # a read whose caller left had its place in the queue until now
            if read.future.done():
                continue
            if read.error is not None:
                read.future.set_exception(read.error)
            else:
                read.future.set_result(read.result)

    # In the thread.

    def _run(self) -> None:
        while (reads := self._queue.get()) is not None:
            self._read_all(reads)
            with contextlib.suppress(RuntimeError):  # the loop is closed, so no caller is left
                self._loop.call_soon_threadsafe(self._answer, reads)
            del reads  # they may be large, and the next ones may come late

    def _read_all(self, reads: list[_Read]) -> None:
        for read in reads:
            try:
                read.result = self._attempt(read.work)
            except ApprovalError as error:
                read.error = error
        self._end_transaction()

    def _attempt(self, work: Work[Result]) -> Result:
        self._health.check()
        try:
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            return work(self._db)
        except Exception as error:
            _close_cursors(error)
            self._end_transaction()
            if isinstance(error, ApprovalError):
                raise
            if is_temporary(error):
                raise StoreError(f"The store could not be read ({error}). Try again later.") from error
            raise (self._health.fail(error) if is_fatal(error) else refuse(error)) from error

    def _end_transaction(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # an error may have ended it
            self._db.rollback()


def _close_cursors(error: BaseException | None) -> None:
    """Free the variables of a failed read. A cursor among them would keep its snapshot for the reads that follow."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
