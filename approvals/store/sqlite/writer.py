"""The one thread that writes to the file: jobs come through a bounded queue and share their commits.

The jobs that one turn of the event loop requests reach the thread together. Up to BATCH waiting jobs run in one BEGIN
IMMEDIATE ... COMMIT and are answered after the commit. Writes of one kind run together, in a few statements, and the
audit events of all jobs are linked in one pass. If that fails, the transaction starts again with a savepoint for each
job, so that a job that fails undoes only itself. A commit that fails undoes every job in it, and every caller gets the
error. A full or busy disk may recover, so posted jobs are kept and tried again. After any other failure the store
accepts no more work (`health`).
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from approvals.audit import EncodedEvent
from approvals.errors import ApprovalError, StoreError
from approvals.store.sqlite.health import Health, is_fatal, is_temporary, refuse

#: Jobs that share one commit, and posted events that are written without waiting for more.
BATCH = 1024
#: The most callers that may wait, and the most posted jobs and events that may be unwritten.
MAX_WAITING = 10_000
MAX_POSTED = 50_000
#: Seconds that posted work waits to share a commit, and seconds before kept work is tried again.
POST_DELAY = 0.05
RETRY = 0.25

logger = logging.getLogger("okayed.store")

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]
#: Writes the items of several jobs. It may run a second time, after a rollback.
WriteMany = Callable[[sqlite3.Connection, Sequence[Any]], None]
WriteEvents = Callable[[sqlite3.Connection, Sequence[EncodedEvent]], None]


@dataclass(slots=True, eq=False)
class _Job:
    """Work, or an item that is written with others of its kind; its audit events, and its result.

    A job without a future was posted: no caller waits for it, and it holds *size* posts.
    """

    work: Work[Any] | None = None
    write: WriteMany | None = None
    item: Any = None
    events: Sequence[EncodedEvent] = ()
    future: "asyncio.Future[Any] | None" = None
    then: Callable[[], None] | None = None
    otherwise: Callable[[], None] | None = None
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

    def __init__(
        self, connection: sqlite3.Connection, file: LockedFile, health: Health, write_events: WriteEvents
    ) -> None:
        self._db = connection
        self._file = file
        self._health = health
        self._write_events = write_events
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[list[_Job] | None] = SimpleQueue()
        #: The jobs, and after them the posted events, that were not sent to the thread yet.
        self._outbox: list[_Job] = []
        self._posted: list[EncodedEvent] = []
        #: Sends them: in this turn of the loop, or later.
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = 0
        self._unwritten = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="okayed-store", daemon=True)
        self._thread.start()

    async def do(
        self,
        work: Work[Result],
        *events: EncodedEvent,
        then: Callable[[], None] | None = None,
        otherwise: Callable[[], None] | None = None,
    ) -> Result:
        """Run *work* with its events; return its result after the commit.

        In the event loop *then* runs after the commit, and *otherwise* after a failure, even if the caller left.
        """
        result: Result = await self._put(_Job(work, events=events, then=then, otherwise=otherwise))
        return result

    async def write(
        self,
        many: WriteMany,
        item: object,
        *events: EncodedEvent,
        then: Callable[[], None] | None = None,
        otherwise: Callable[[], None] | None = None,
    ) -> None:
        """Write *item* with its events, together with other items for *many*; return after the commit."""
        await self._put(_Job(write=many, item=item, events=events, then=then, otherwise=otherwise))

    async def append(self, *events: EncodedEvent) -> None:
        """Write audit events; return after the commit."""
        await self._put(_Job(events=events))

    async def flush(self) -> None:
        """Wait until every earlier job was written, or cannot be written for now."""
        if self._waiting or self._unwritten:
            with contextlib.suppress(StoreError):
                await self.do(_do_nothing)

    async def _put(self, job: _Job) -> Any:
        try:
            self._check_capacity(self._waiting, MAX_WAITING)
        except StoreError:
            if job.otherwise is not None:
                job.otherwise()
            raise
        self._waiting += 1
        job.future = self._loop.create_future()
        self._add(job)
        if self._turn is None:
            self._turn = self._loop.call_soon(self._send)
        try:
            return await job.future
        finally:  # a traceback keeps this frame, and must not keep the job: it may hold megabytes
            del job

    def post(self, work: Work[None], *, then: Callable[[], None] | None = None) -> None:
        """Run *work* with the next commit, without waiting; *then* runs in the event loop after it.

        Raises `StoreError` when the store cannot keep up.
        """
        self._check_capacity(self._unwritten, MAX_POSTED)
        self._unwritten += 1
        self._add(_Job(work, then=then))
        self._send_soon(len(self._outbox))

    def post_events(self, *events: EncodedEvent) -> None:
        """Write audit events with the next commit, without waiting; raises `StoreError` when the store cannot keep up."""
        self._check_capacity(self._unwritten, MAX_POSTED)
        self._unwritten += len(events)
        self._posted += events
        self._send_soon(len(self._posted))

    def _check_capacity(self, used: int, most: int) -> None:
        self._health.check()
        if self._closed:
            raise StoreError("The store is closed.")
        if used >= most:
            raise StoreError("The store cannot keep up: too many writes are waiting. Try again later.")

    def _add(self, job: _Job) -> None:
        self._close_posted()
        self._outbox.append(job)

    def _close_posted(self) -> None:
        """Make the posted events a job, so that later jobs come after them."""
        if self._posted:
            self._outbox.append(_Job(events=self._posted, size=len(self._posted)))
            self._posted = []

    def _send_soon(self, waiting: int) -> None:
        if waiting >= BATCH:
            self._send()
        elif self._timer is None and self._turn is None:
            self._timer = self._loop.call_later(POST_DELAY, self._send)

    def _send(self) -> None:
        """Send the jobs and the posted events to the thread."""
        for handle in (self._turn, self._timer):
            if handle is not None:
                handle.cancel()
        self._turn = self._timer = None
        self._close_posted()
        jobs, self._outbox = self._outbox, []
        for start in range(0, len(jobs), BATCH):
            self._jobs.put(jobs[start : start + BATCH])

    async def close(self) -> None:
        """Write every job, then close the connection; raises `StoreError` when some posts could not be written."""
        if self._thread.is_alive():
            self._send()
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            # Let the loop deliver the last answers, which the thread scheduled before it ended.
            await asyncio.sleep(0)
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
            jobs = self._jobs.get(timeout=RETRY) if kept else self._jobs.get()
            while jobs is not None:
                batch += jobs
                if len(batch) >= BATCH:
                    return batch, False
                jobs = self._jobs.get_nowait()
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
        try:
            self._run_together(jobs)
        except Exception as error:
            if is_fatal(error) or not self._db.in_transaction:
                raise
            self._db.execute("ROLLBACK")
            self._db.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._attempt(job)
        self._db.execute("COMMIT")
        self._file.note_commit(self._db)

    def _run_together(self, jobs: list[_Job]) -> None:
        """Run jobs in their order. Work may read the trail, so the events of earlier jobs are written before it."""
        for works, group in groupby(jobs, key=_has_work):
            if works:
                for job in group:
                    self._do_work(job)
            else:
                self._write_all(list(group))

    def _do_work(self, job: _Job) -> None:
        if job.work is not None:
            job.result = job.work(self._db)
        self._write_events(self._db, job.events)

    def _write_all(self, jobs: list[_Job]) -> None:
        """Write the items of consecutive jobs of one kind together, then the events of all jobs."""
        for write, group in groupby((job for job in jobs if job.write), key=attrgetter("write")):
            write(self._db, [job.item for job in group])
        self._write_events(self._db, [event for job in jobs for event in job.events])

    def _attempt(self, job: _Job) -> None:
        """Run one job; undo it if it fails."""
        self._db.execute("SAVEPOINT job")
        try:
            self._run_together([job])
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
            if (follow_up := job.otherwise if job.error else job.then) is not None:
                follow_up()
            if job.future is None:
                self._unwritten -= 0 if job.error else job.size
                continue
            self._waiting -= 1
            if job.future.done():  # the caller was cancelled
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)


def _has_work(job: _Job) -> bool:
    return job.work is not None


def _do_nothing(_: sqlite3.Connection) -> None:
    """Wait for the jobs before this one."""
