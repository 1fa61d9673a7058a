"""The one thread that owns the SQLite connection: jobs come through a bounded queue and share their commits.

Whatever waits, up to BATCH jobs, runs in one BEGIN IMMEDIATE ... COMMIT, each in a savepoint of its own, and is answered
after the commit. A job that fails undoes only itself. When the commit itself fails, nothing was done, every job is
told so, and the store takes no more work: after a failed sync nobody knows what is on the disk.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from approvals.errors import ApprovalError, StoreError
from approvals.model import CallId

#: Jobs that share one commit, and jobs that may wait.
BATCH = 256
MAX_WAITING = 50_000

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


class Job(Generic[Result]):
    """One piece of work and where its result goes; nobody waits for one that was posted."""

    def __init__(self, work: Work[Result], future: "asyncio.Future[Result] | None", changes: CallId | None = None) -> None:
        self.work = work
        self.future = future
        self.changes = changes
        self.result: Result | None = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """Hand the result over, in the event loop; a caller who was cancelled is not there any more."""
        if self.future is None or self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # set together with `error is None`


class Writer:
    """Runs jobs in its thread, in the order they came."""

    def __init__(self, connection: sqlite3.Connection, announce: Callable[[Iterable[CallId]], None]) -> None:
        self._connection = connection
        self._announce = announce
        self._jobs: queue.Queue[Job[Any] | None] = queue.Queue(MAX_WAITING)
        self._loop = asyncio.get_running_loop()
        self._broken: str | None = None
        self._thread = threading.Thread(target=self._run, name="holdpoint-store", daemon=True)
        self._thread.start()

    async def do(self, work: Work[Result], *, changes: CallId | None = None) -> Result:
        """Run *work* and return its result after the commit that holds it; then the call it *changes* is announced."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._put(Job(work, future, changes))
        return await future

    def post(self, work: Work[None]) -> None:
        """Run *work* in the next commit and do not wait; raises `StoreError` when the store cannot keep up."""
        self._put(Job(work, None))

    def _put(self, job: Job[Any]) -> None:
        if self._broken is not None:
            raise StoreError(self._broken)
        try:
            self._jobs.put_nowait(job)
        except queue.Full as error:
            raise StoreError("The store cannot keep up; too much waits to be written.") from error

    async def close(self) -> None:
        """Finish what waits and end the thread."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._jobs.get()]
            while len(batch) < BATCH and not self._jobs.empty():
                batch.append(self._jobs.get())
            jobs = [job for job in batch if job is not None]
            ended = len(jobs) < len(batch)
            if jobs:
                self._commit(jobs)

    def _commit(self, jobs: list[Job[Any]]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._attempt(job)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._fail(jobs, error)
        self._loop.call_soon_threadsafe(self._answer, jobs)

    def _attempt(self, job: Job[Any]) -> None:
        self._connection.execute("SAVEPOINT job")
        try:
            job.result = job.work(self._connection)
        except (ApprovalError, sqlite3.IntegrityError) as error:
            job.error = error
            self._connection.execute("ROLLBACK TO job")
        self._connection.execute("RELEASE job")

    def _fail(self, jobs: list[Job[Any]], error: sqlite3.Error) -> None:
        self._broken = f"The store failed ({error}) and takes no more work; mend the disk and start again."
        for job in jobs:
            job.error = StoreError(self._broken)
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _answer(self, jobs: list[Job[Any]]) -> None:
        self._announce([job.changes for job in jobs if job.changes is not None and job.error is None])
        for job in jobs:
            job.answer()
