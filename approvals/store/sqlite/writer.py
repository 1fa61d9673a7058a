"""The one thread that writes to the file: jobs come through a bounded queue and share their commits.

Up to BATCH waiting jobs run in one BEGIN IMMEDIATE ... COMMIT, each in its own savepoint, and are answered after the
commit. A job that fails undoes only itself. A commit that fails undoes every job in it, and every caller gets the
error. A full or busy disk may recover, so posted jobs are kept and tried again. After any other failure the store
accepts no more work (`health`).
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from approvals.errors import ApprovalError, StoreError
from approvals.store.sqlite.health import Health, is_fatal, is_temporary, refuse

#: Jobs that share one commit.
BATCH = 256
#: The most callers that may wait, and the most posted jobs that may be unwritten.
MAX_WAITING = 10_000
MAX_POSTED = 50_000
#: Seconds that posted work waits to share a commit, and seconds before kept work is tried again.
LINGER = 0.02
RETRY = 0.25

logger = logging.getLogger("okayed.store")

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


@dataclass(slots=True, eq=False)
class _Job:
    """Work and its result. A job without a future was posted: no caller waits for it, and it holds *size* posts."""

    work: Work[Any]
    future: "asyncio.Future[Any] | None" = None
    then: Callable[[], None] | None = None
    size: int = 1
    result: Any = None
    error: Exception | None = None


class LockedFile(Protocol):
    """The file behind the connection, as the writer's thread uses it: `approvals.store.sqlite.file.StoreFile`."""

    def check_identity(self) -> None:
        """Raise if the file was removed or replaced; called before each transaction."""

    def note_commit(self, connection: sqlite3.Connection) -> None:
        """Note the last committed event."""

    def close(self, *, clean: bool) -> None:
        """Release the lock, after the connection was closed; *clean*: without a failure."""


class Writer:
    """Runs jobs in its thread, in order of arrival. Every method belongs to the event loop that created it."""

    def __init__(self, connection: sqlite3.Connection, file: LockedFile, health: Health) -> None:
        self._db = connection
        self._file = file
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._posted: list[_Job] = []
        self._flush: asyncio.TimerHandle | None = None
        self._waiting = 0
        self._unwritten = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="okayed-store", daemon=True)
        self._thread.start()

    async def do(self, work: Work[Result], *, then: Callable[[], None] | None = None) -> Result:
        """Run *work* and return its result after the commit; *then* runs in the event loop, even if the caller left."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._put(_Job(work, future, then=then))
        try:
            return await future
        finally:  # a traceback keeps this frame, and must not keep the future: its work may hold megabytes
            del future

    async def flush(self) -> None:
        """Wait until every earlier job was written, or cannot be written for now."""
        if self._waiting or self._unwritten:
            with contextlib.suppress(StoreError):
                await self.do(_do_nothing)

    def _put(self, job: _Job) -> None:
        self._check_capacity(self._waiting, MAX_WAITING)
        self._waiting += 1
        self._flush_posted()
        self._jobs.put(job)

    def post(self, work: Work[None], *, then: Callable[[], None] | None = None) -> None:
        """Run *work* with the next commit, without waiting; *then* runs in the event loop after it.

        Raises `StoreError` when the store cannot keep up.
        """
        self._check_capacity(self._unwritten, MAX_POSTED)
        self._unwritten += 1
        self._posted.append(_Job(work, then=then))
        if len(self._posted) >= BATCH:
            self._flush_posted()
        elif self._flush is None:
            self._flush = self._loop.call_later(LINGER, self._flush_posted)

    def _check_capacity(self, used: int, most: int) -> None:
        self._health.check()
        if self._closed:
            raise StoreError("The store is closed.")
        if used >= most:
            raise StoreError("The store cannot keep up: too many writes are waiting. Try again later.")

    def _flush_posted(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._posted:
            posts, self._posted = self._posted, []
            self._jobs.put(_Job(partial(_run_all, posts), then=partial(_follow_up, posts), size=len(posts)))

    async def close(self) -> None:
        """Write every job, then close the connection; raises `StoreError` when some posts could not be written."""
        if self._thread.is_alive():
            self._flush_posted()
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            await asyncio.sleep(
                0
            )  # let the loop deliver the last answers, which the thread scheduled before it ended
        if self._unwritten:
            lost, self._unwritten = self._unwritten, 0
            raise StoreError(
                f"Entries, including audit events, that were not written before the store closed: {lost}."
            )

    # In the thread.

    def _run(self) -> None:
        kept: list[_Job] = []
        closing = False
        while not closing:
            batch, closing = self._gather(kept)
            kept = self._commit(batch) if batch else []
            del batch  # jobs may be large, and the next one may come late
        clean = self._health.failure is None
        try:
            self._db.close()
        except sqlite3.Error:  # every commit is done
            clean = False
        self._file.close(clean=clean)

    def _gather(self, kept: list[_Job]) -> tuple[list[_Job], bool]:
        """Return the kept jobs and then the waiting ones, and whether the writer is closing."""
        batch = list(kept)
        try:
            job = self._jobs.get(timeout=RETRY) if kept else self._jobs.get()
            while job is not None:
                batch.append(job)
                if len(batch) >= BATCH:
                    return batch, False
                job = self._jobs.get_nowait()
        except Empty:
            return batch, False
        return batch, True

    def _commit(self, jobs: list[_Job]) -> list[_Job]:
        """Run *jobs* in one transaction, answer them, and return the jobs to try again."""
        try:
            self._transact(jobs)
        except Exception as error:  # noqa: BLE001  (every failure must reach the callers)
            return self._undo(jobs, error)
        self._schedule_answers(jobs)
        return []

    def _transact(self, jobs: list[_Job]) -> None:
        self._health.check()
        self._file.check_identity()
        self._db.execute("BEGIN IMMEDIATE")
        for job in jobs:
            self._attempt(job)
        self._db.execute("COMMIT")
        self._file.note_commit(self._db)

    def _attempt(self, job: _Job) -> None:
        self._db.execute("SAVEPOINT job")
        try:
            job.result = job.work(self._db)
        except Exception as error:
            if job.future is None or is_fatal(error) or not self._db.in_transaction:
                raise
            self._db.execute("ROLLBACK TO job")
            # Drop the traceback: its frames keep the job, and the job keeps the error.
            job.error = (error if isinstance(error, ApprovalError) else refuse(error)).with_traceback(None)
        self._db.execute("RELEASE job")

    def _undo(self, jobs: list[_Job], error: Exception) -> list[_Job]:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back already
            self._db.rollback()
        if self._health.failure is None and is_temporary(error):
            logger.warning("could not write (%s); posted entries will be retried", error)
            self._fail(
                [job for job in jobs if job.future],
                f"The store could not write ({error}); nothing was changed.",
            )
            return [job for job in jobs if not job.future]
        self._fail(jobs, str(self._health.fail(error)))
        return []

    def _fail(self, jobs: list[_Job], message: str) -> None:
        for job in jobs:
            job.error = StoreError(message)
        self._schedule_answers(jobs)

    def _schedule_answers(self, jobs: list[_Job]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no caller is left
            self._loop.call_soon_threadsafe(self._answer, jobs)

    # In the event loop again.

    def _answer(self, jobs: list[_Job]) -> None:
        for job in jobs:
            if job.error is None and job.then is not None:
                job.then()
            if job.future is None:
                self._unwritten -= job.size if job.error is None else 0
                continue
            self._waiting -= 1
            if job.future.done():  # the caller was cancelled
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)


def _run_all(posts: list[_Job], db: sqlite3.Connection) -> None:
    for post in posts:
        post.work(db)


def _follow_up(posts: list[_Job]) -> None:
    for post in posts:
        if post.then is not None:
            post.then()


def _do_nothing(_: sqlite3.Connection) -> None:
    """Wait for the jobs before this one."""
