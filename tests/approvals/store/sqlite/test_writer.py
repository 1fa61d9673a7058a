import asyncio
import sqlite3
import threading
from contextlib import suppress

import pytest

from approvals.errors import Conflict, StoreError
from approvals.store.sqlite import writer
from approvals.store.sqlite.health import Health
from approvals.store.sqlite.writer import Writer
from hang import HANG


class Watch:
    """A file that a test controls."""

    def __init__(self):
        self.broken = None
        self.noted = 0
        self.closed = threading.Event()

    def check_identity(self):
        if self.broken:
            broken, self.broken = self.broken, None
            raise broken

    def note_commit(self, _):
        self.noted += 1

    def close(self, *, clean):
        self.clean = clean
        self.closed.set()


class Desk:
    """A writer over a database in memory, and every statement that opened or closed a transaction."""

    def __init__(self):
        self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY CHECK (n < 5000), big BLOB)")
        self.statements = []
        self.db.set_trace_callback(self.statements.append)
        self.watch = Watch()
        self.writer = Writer(self.db, self.watch, Health(), lambda _db, _events: None)

    def insert(self, *numbers):
        return lambda db: (
            db.executemany("INSERT INTO t (n) VALUES (?)", [(number,) for number in numbers]) and None
        )

    async def do(self, *numbers):
        await self.writer.do(self.insert(*numbers))

    def post(self, *numbers):
        self.writer.post(self.insert(*numbers))

    async def rows(self):
        return await self.writer.do(lambda db: [n for (n,) in db.execute("SELECT n FROM t ORDER BY n")])

    def held_up(self):
        """Keep the thread busy until the returned event is set, so that the jobs of that time share a batch."""
        begun, go = threading.Event(), threading.Event()

        def wait(_):
            begun.set()
            go.wait(10)

        self.writer.post(wait)
        self.writer._send()
        begun.wait(10)
        return go

    def count(self, statement):
        return self.statements.count(statement)


@pytest.fixture
async def desk():
    async with asyncio.timeout(HANG):
        opened = Desk()
        yield opened
        with suppress(StoreError):
            await opened.writer.close()


async def together(desk, *waits):
    """Start all of *waits* while the writer's thread is busy."""
    go = desk.held_up()
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.sleep(0)
    go.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_waiting_jobs_share_one_commit(desk):
    await together(desk, *(desk.do(number) for number in range(100)))
    assert desk.count("BEGIN IMMEDIATE") == desk.count("COMMIT") == 2
    assert await desk.rows() == list(range(100))


async def test_no_more_than_a_batch_shares_a_commit(desk):
    await together(desk, *(desk.do(number) for number in range(writer.BATCH + 1)))
    assert desk.count("COMMIT") == 3


async def test_a_job_that_fails_undoes_only_itself_and_says_why(desk):
    def conflict(db):
        db.execute("INSERT INTO t (n) VALUES (77)")
        raise Conflict

    def bug(db):
        db.execute("INSERT INTO t (n) VALUES (78)")
        raise KeyError("gone")

    told = await together(
        desk,
        desk.do(1),
        desk.writer.do(conflict),
        desk.do(2, 1),
        desk.do(3, 9000),
        desk.writer.do(bug),
        desk.do(5),
    )
    assert list(map(repr, told)) == [
        "None",
        "Conflict('Someone else changed this call at the same time; read it again.')",
        "StoreError('The store refused this: UNIQUE constraint failed: t.n.')",
        "StoreError('The store refused this: CHECK constraint failed: n < 5000.')",
        "StoreError(\"The store refused this: 'gone'.\")",
        "None",
    ]
    assert isinstance(told[4].__cause__, KeyError)
    assert await desk.rows() == [1, 5]


@pytest.mark.parametrize("error", [sqlite3.OperationalError, sqlite3.InternalError, sqlite3.DatabaseError])
async def test_an_error_of_the_disk_or_the_file_stops_the_store(desk, error):
    def unlucky(db):
        raise error("disk I/O error")

    told = await together(desk, desk.do(1), desk.writer.do(unlucky))
    said = "The store failed (disk I/O error) and accepts no more work; repair it and restart."
    assert [str(one) for one in told] == [said] * 2
    with pytest.raises(StoreError, match="accepts no more work"):
        await desk.rows()


async def test_no_caller_is_answered_before_the_commit(desk):
    at_commit = []

    def look(statement):
        if statement == "COMMIT":
            at_commit.append([task.done() for task in tasks])

    tasks = []
    desk.db.set_trace_callback(look)
    go = desk.held_up()
    tasks += [asyncio.ensure_future(desk.do(number)) for number in range(3)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    assert at_commit[-1] == [False] * 3


async def test_flush_waits_for_the_posts_before_it_and_writes_nothing_without_posts(desk):
    await desk.writer.flush()
    assert desk.count("COMMIT") == 0
    desk.post(1)
    await desk.writer.flush()
    assert desk.db.execute("SELECT n FROM t").fetchall() == [(1,)]
    assert desk.count("COMMIT") == desk.watch.noted == 1


async def test_a_failed_commit_acknowledges_nothing_and_stops_the_store(desk):
    heard = []
    desk.db.execute("CREATE TABLE child (n REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)")
    desk.db.execute("PRAGMA foreign_keys=ON")

    def orphan(db):
        db.execute("INSERT INTO child VALUES (999)")

    told = await together(
        desk,
        desk.writer.do(desk.insert(1), then=lambda: heard.append(1)),
        desk.writer.do(orphan),
        desk.rows(),
    )
    said = "The store failed (FOREIGN KEY constraint failed) and accepts no more work; repair it and restart."
    assert [str(one) for one in told] == [said] * 3
    assert heard == []
    for refused in (desk.do(2), desk.rows()):
        with pytest.raises(StoreError) as refusal:
            await refused
        assert str(refusal.value) == said
    with pytest.raises(StoreError):
        desk.post(2)
    assert desk.db.execute("SELECT count(*) FROM t").fetchone() == (0,)


async def test_jobs_queued_before_a_failure_are_refused_after_it(desk):
    go = desk.held_up()
    desk.watch.broken = OSError("the file is gone")
    later = [asyncio.ensure_future(desk.do(number)) for number in range(writer.BATCH + 10)]
    await asyncio.sleep(0)
    go.set()
    told = {str(one) for one in await asyncio.gather(*later, return_exceptions=True)}
    assert told == {"The store failed (the file is gone) and accepts no more work; repair it and restart."}
    assert desk.db.execute("SELECT count(*) FROM t").fetchone() == (0,)


async def test_a_posted_job_that_is_refused_stops_the_store_and_is_not_lost(desk):
    await desk.do(1)
    desk.post(2)
    desk.post(1)
    with pytest.raises(StoreError, match=r"The store failed \(UNIQUE constraint failed: t.n\)"):
        await desk.do(3)
    with pytest.raises(StoreError, match=r"closed: 2\."):
        await desk.writer.close()


def full(desk):
    """Allow the database no more pages."""
    (pages,) = desk.db.execute("PRAGMA page_count").fetchone()
    desk.db.execute(f"PRAGMA max_page_count={pages}")


def big(number):
    return lambda db: db.execute("INSERT INTO t VALUES (?, zeroblob(20000))", (number,)) and None


async def test_a_full_disk_fails_waiting_callers_and_keeps_posted_jobs_until_there_is_room(desk):
    go = desk.held_up()
    full(desk)
    desk.writer.post(big(1))
    asked = asyncio.gather(desk.writer.do(big(2)), desk.do(3), return_exceptions=True)
    await asyncio.sleep(0)
    go.set()
    told = await asked
    assert [str(one) for one in told] == [
        "The store could not write (database or disk is full); nothing was changed."
    ] * 2
    with pytest.raises(StoreError, match="full"):
        await desk.do(4)
    await desk.writer.flush()
    desk.db.execute("PRAGMA max_page_count=1000000")
    await desk.do(5)
    assert await desk.rows() == [1, 5]


async def test_kept_work_is_retried_without_a_new_request(desk):
    full(desk)
    desk.writer.post(big(1))
    with pytest.raises(StoreError):
        await desk.writer.do(big(2))
    written = asyncio.Event()
    loop = asyncio.get_running_loop()
    desk.watch.note_commit = lambda _: loop.call_soon_threadsafe(written.set)
    desk.db.execute("PRAGMA max_page_count=1000000")
    await written.wait()
    assert await desk.rows() == [1]


async def test_posts_that_could_not_be_written_are_reported_on_close(desk):
    full(desk)
    desk.writer.post(big(1))
    desk.writer.post(big(2))
    with pytest.raises(StoreError, match=r"^Entries, including audit events, .* closed: 2\.$"):
        await desk.writer.close()
    await desk.writer.close()


async def test_posts_are_written_with_the_next_commit_in_order(desk):
    desk.post(1)
    desk.post(2)
    assert await desk.rows() == [1, 2]
    assert desk.count("COMMIT") == 1


async def test_posts_are_written_without_other_work(desk):
    written = asyncio.Event()
    loop = asyncio.get_running_loop()
    desk.watch.note_commit = lambda _: loop.call_soon_threadsafe(written.set)
    desk.post(1)
    await written.wait()
    for number in range(2, 2 + writer.BATCH):
        desk.post(number)
    assert desk.writer._outbox == []
    await desk.writer.close()
    assert desk.writer._unwritten == 0


async def test_posts_beyond_the_limit_are_refused_not_dropped(desk):
    go = desk.held_up()
    nothing = desk.insert()
    for _ in range(writer.MAX_POSTED - 1):
        desk.writer.post(nothing)
    with pytest.raises(
        StoreError, match=r"^The store cannot keep up: too many writes are waiting\. Try again later\.$"
    ):
        desk.post(1)
    go.set()
    await desk.rows()
    desk.post(1)
    assert await desk.rows() == [1]


async def test_callers_beyond_the_limit_are_refused(desk):
    go = desk.held_up()
    waiting = [asyncio.ensure_future(desk.rows()) for _ in range(writer.MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="cannot keep up"):
        await desk.do(1)
    go.set()
    await asyncio.gather(*waiting)
    await desk.do(1)


async def test_a_commit_is_followed_up_even_if_the_caller_left(desk):
    heard = []
    go = desk.held_up()
    task = asyncio.ensure_future(desk.writer.do(desk.insert(1), then=lambda: heard.append("committed")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    go.set()
    assert await desk.rows() == [1]
    assert heard == ["committed"]


async def test_each_post_is_followed_up_after_its_commit(desk):
    heard = []
    go = desk.held_up()
    for number in (1, 2):
        desk.writer.post(
            desk.insert(number), then=lambda number=number: heard.append((number, desk.db.in_transaction))
        )
    desk.post(3)
    assert heard == []
    go.set()
    assert await desk.rows() == [1, 2, 3]
    assert heard == [(1, False), (2, False)]


async def test_a_post_that_could_not_be_written_is_followed_up_when_it_is(desk):
    heard = []
    full(desk)
    desk.writer.post(big(1), then=lambda: heard.append("committed"))
    await desk.writer.flush()
    assert heard == []
    desk.db.execute("PRAGMA max_page_count=1000000")
    assert await desk.rows() == [1]
    assert heard == ["committed"]


async def test_a_closed_writer_has_written_every_job_and_accepts_no_more(desk):
    heard = []
    go = desk.held_up()
    desk.post(1)
    last = asyncio.ensure_future(desk.writer.do(desk.insert(2), then=lambda: heard.append(2)))
    await asyncio.sleep(0)
    desk.post(3)
    closing = asyncio.ensure_future(desk.writer.close())
    await asyncio.sleep(0)
    go.set()
    await closing
    await last
    assert heard == [2]
    assert desk.watch.noted == 2
    assert desk.watch.closed.is_set()
    for refused in (desk.do(4), desk.rows()):
        with pytest.raises(StoreError, match=r"^The store is closed\.$"):
            await refused
    await desk.writer.close()


def test_a_closed_event_loop_does_no_harm():
    async def leave():
        desk = Desk()
        go = desk.held_up()
        task = asyncio.ensure_future(desk.do(1))
        await asyncio.sleep(0)
        return desk, go, task

    desk, go, _ = asyncio.run(leave())
    go.set()
    desk.writer._jobs.put(None)
    desk.writer._thread.join(10)
    assert desk.watch.noted == 2
    assert desk.watch.closed.is_set()
