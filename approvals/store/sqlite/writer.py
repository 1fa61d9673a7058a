"""The one thread that owns the SQLite connection: jobs come through a bounded queue and share their commits.

Whatever waits, up to BATCH jobs, runs in one BEGIN IMMEDIATE ... COMMIT, each in a savepoint of its own, and is
answered after the commit. A job that fails undoes only itself. When the commit fails, nothing was done and everyone
is told so. A full or busy disk may mend itself: what was posted is kept and tried again. After any other failure
nobody knows what is on the disk, so no more work is taken.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from approvals.errors import ApprovalError, StoreError

#: Jobs that share one commit.
BATCH = 256
#: Callers that may wait, and posted jobs that may lie unwritten, before more are refused.
MAX_WAITING = 10_000
MAX_POSTED = 50_000
#: Seconds that posted work waits for company, and that kept work waits for the disk to mend.
LINGER = 0.02
RETRY = 0.25

#: Failures that leave the file as it was and may pass.
_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


@dataclass(slots=True, eq=False)
class _Job:
    """Work, and what became of it. Nobody waits for a job without a future: it was posted, and holds *size* of them."""

    work: Work[Any]
    future: "asyncio.Future[Any] | None" = None
    writes: bool = True
    then: Callable[[], None] | None = None
    size: int = 1
    result: Any = None
    error: Exception | None = None


class Guard(Protocol):
    """What stands by the writer in its thread; `approvals.store.sqlite.file.StoreFile` does."""

    def still_ours(self) -> None:
        """Raise before a transaction that must not begin."""

    def committed(self, connection: sqlite3.Connection) -> None:
        """Take note of what was committed."""

    def close(self) -> None:
        """Let go; the connection is closed."""


class Writer:
    """Runs jobs in its thread, in the order they came. All methods belong to the event loop that made it."""

    def __init__(self, connection: sqlite3.Connection, guard: Guard) -> None:
        self._db = connection
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._posted: list[Work[None]] = []
        self._flush: asyncio.TimerHandle | None = None
        self._waiting = 0
        self._unwritten = 0
        #: Why no more work is taken, once it is not.
        self._refusal: str | None = None
        self._failed: str | None = None
        self._thread = threading.Thread(target=self._run, name="okayed-store", daemon=True)
        self._thread.start()

    async def do(self, work: Work[Result], *, then: Callable[[], None] | None = None) -> Result:
        """Run *work* and return its result after its commit; *then* runs in the event loop, also if the caller left."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._put(_Job(work, future, then=then))
        try:
            return await future
        finally:  # an error keeps this frame, which must not keep the error: the work may hold megabytes
            del future

    async def read(self, work: Work[Result]) -> Result:
        """Run *work* that changes nothing and return its result."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._put(_Job(work, future, writes=False))
        return await future

    def _put(self, job: _Job) -> None:
        self._may_come(self._waiting, MAX_WAITING)
        self._waiting += 1
        self._pass_posted_on()
        self._jobs.put(job)

    def post(self, work: Work[None]) -> None:
        """Run *work* with the next commit, without waiting; raises `StoreError` when the store cannot keep up."""
        self._may_come(self._unwritten, MAX_POSTED)
        self._unwritten += 1
        self._posted.append(work)
        if len(self._posted) >= BATCH:
            self._pass_posted_on()
        elif self._flush is None:
            self._flush = self._loop.call_later(LINGER, self._pass_posted_on)

    def _may_come(self, there: int, most: int) -> None:
        if self._refusal is not None:
            raise StoreError(self._refusal)
        if there >= most:
            raise StoreError("The store cannot keep up: too much waits to be written. Try again later.")

    def _pass_posted_on(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._posted:
            works, self._posted = self._posted, []
            self._jobs.put(_Job(lambda db: _each(works, db), size=len(works)))

    async def close(self) -> None:
        """Write what was given, then let go of the connection; raises `StoreError` when some could not be written."""
        if self._thread.is_alive():
            self._pass_posted_on()
            self._refusal = self._refusal or "The store is closed."
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            await asyncio.sleep(0)  # the last answers were handed to the loop before the thread ended
        if self._unwritten:
            lost, self._unwritten = self._unwritten, 0
            raise StoreError(
                f"{lost} entries, audit events among them, could not be written before the store closed."
            )

    # In the thread.

    def _run(self) -> None:
        kept: list[_Job] = []
        closing = False
        while not closing:
            batch, closing = self._gather(kept)
            kept = self._commit(batch)
            del batch  # what they hold may be large, and the next one may be long in coming
        with contextlib.suppress(sqlite3.Error):  # all that counts is committed
            self._db.close()
        self._guard.close()

    def _gather(self, kept: list[_Job]) -> tuple[list[_Job], bool]:
        """Return what waits, behind what was kept, and whether the end has come."""
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
        """Run *jobs* in one transaction, answer them, and return those that must be tried again."""
        try:
            self._transact(jobs)
        except Exception as error:  # noqa: BLE001  (whatever happens in here, those who wait must hear of it)
            return self._undo(jobs, error)
        self._tell(jobs)
        return []

    def _transact(self, jobs: list[_Job]) -> None:
        if self._failed is not None:
            raise StoreError(self._failed)
        writes = any(job.writes for job in jobs)
        if writes:
            self._guard.still_ours()
        self._db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        for job in jobs:
            self._attempt(job)
        self._db.execute("COMMIT")
        if writes:
            self._guard.committed(self._db)

    def _attempt(self, job: _Job) -> None:
        self._db.execute("SAVEPOINT job")
        try:
            job.result = job.work(self._db)
        except Exception as error:
            if job.future is None or _hurts_all(error) or not self._db.in_transaction:
                raise
            self._db.execute("ROLLBACK TO job")
            # Without the frames that it came through: they keep the job, and the job keeps the error.
            job.error = (error if isinstance(error, ApprovalError) else _refused(error)).with_traceback(None)
        self._db.execute("RELEASE job")

    def _undo(self, jobs: list[_Job], error: Exception) -> list[_Job]:
        with contextlib.suppress(sqlite3.Error):  # it may have undone itself
            self._db.rollback()
        writes = [job for job in jobs if job.writes]
        if self._failed is None and writes and _code(error) in _PASSING:
            logger.warning("store: could not write (%s); what was posted is tried again", error)
            self._fail(
                [job for job in writes if job.future],
                f"The store could not write ({error}); nothing was changed.",
            )
            self._commit([job for job in jobs if not job.writes])  # a full disk can still be read
            return [job for job in writes if not job.future]
        if self._failed is None:
            self._failed = self._refusal = (
                f"The store failed ({error}) and takes no more work; mend it and start again."
            )
            logger.critical("store: %s", self._failed)
        self._fail(jobs, self._failed)
        return []

    def _fail(self, jobs: list[_Job], said: str) -> None:
        for job in jobs:
            job.error = StoreError(said)
        self._tell(jobs)

    def _tell(self, jobs: list[_Job]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everyone who could listen
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
            if job.future.done():  # its caller was cancelled
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)


def _each(works: list[Work[None]], db: sqlite3.Connection) -> None:
    for work in works:
        work(db)


def _code(error: Exception) -> int | None:
    """Return SQLite's primary code of *error*."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _hurts_all(error: Exception) -> bool:
    """Say whether *error* is of the file or the disk, not of one job's values."""
    return (
        isinstance(error, sqlite3.OperationalError | sqlite3.InternalError)
        or type(error) is sqlite3.DatabaseError
    )


def _refused(error: Exception) -> StoreError:
    said = StoreError(f"The store refused this: {error}.")
    said.__cause__ = error
    return said
