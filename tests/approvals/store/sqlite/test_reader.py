"""Reads of the SQLite store: on a connection and in a thread of their own."""

import asyncio
import os
import sqlite3
import threading
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from approvals.errors import StoreError
from approvals.lifecycle import advance, update
from approvals.model import State
from approvals.store.call_lists import Page
from approvals.store.sqlite import reader as reader_module
from approvals.store.sqlite.store import SqliteStore
from hang import HANG
from store_fixtures import a_call, an_event


@pytest.fixture
def path(tmp_path):
    return tmp_path / "okayed.db"


@pytest.fixture
async def store(path):
    opened = await SqliteStore.open(path)
    yield opened
    await opened.close()


@asynccontextmanager
async def blocked(run):
    """Keep a thread of the store busy: *run* is `reader.read` or `writer.do`."""
    begun, go = threading.Event(), threading.Event()

    def wait(_):
        begun.set()
        go.wait(HANG)

    job = asyncio.ensure_future(run(wait))
    await asyncio.to_thread(begun.wait, HANG)
    try:
        yield job
    finally:
        go.set()
        await asyncio.gather(job, return_exceptions=True)


async def test_a_read_sees_every_write_that_was_acknowledged_before_it_started(store):
    """Writers and readers run at the same time; each reader compares with the newest acknowledged version."""
    calls = [a_call(key=f"k{number}") for number in range(8)]
    await asyncio.gather(*map(store.add, calls))
    acknowledged = {call.id: call.version for call in calls}
    writing = True

    async def write(call):
        for _ in range(40):
            new = update(call)
            await store.swap(call, new)
            acknowledged[call.id], call = new.version, new

    async def read(call):
        seen = 0
        while writing:
            least = dict(acknowledged)
            assert await store.version(call.id) >= least[call.id]
            versions = {found.id: found.version for found in (await store.summaries()).items}
            assert all(versions[id] >= version for id, version in least.items())
            seen += 1
        return seen

    readers = [asyncio.ensure_future(read(call)) for call in calls]
    await asyncio.gather(*map(write, calls))
    writing = False
    assert all(await asyncio.gather(*readers))
    assert set(acknowledged.values()) == {41}


async def test_the_statements_of_a_read_see_one_snapshot(store):
    first, go = threading.Event(), threading.Event()

    def work(db):
        before = db.execute("SELECT count(*) FROM events").fetchone()
        first.set()
        go.wait(HANG)
        return before, db.execute("SELECT count(*) FROM events").fetchone()

    counts = asyncio.ensure_future(store.reader.read(work))
    await asyncio.to_thread(first.wait, HANG)
    await store.append(an_event())
    go.set()
    assert await counts == ((0,), (0,))
    assert len(await store.events()) == 1


async def test_a_long_read_delays_no_write(store):
    async with blocked(store.reader.read) as search:
        await store.add(call := a_call(), an_event())
        await store.check()
        assert not search.done()
    assert await store.get(call.id) == call


async def test_a_read_waits_for_the_writes_before_it(store):
    await store.add(call := a_call())
    changed = update(call, collected=True)
    for read in (
        lambda: store.get(call.id),
        lambda: store.find(call.key),
        lambda: store.version(call.id),
        lambda: store.select(),
        lambda: store.summaries(),
    ):
        async with blocked(store.writer.do):
            writing = asyncio.ensure_future(store.swap(call, changed))
            await asyncio.sleep(0)
            found = asyncio.ensure_future(read())
            await asyncio.sleep(0)
            await store.reader.read(lambda _: None)
            assert not found.done()
        await writing
        seen = await found
        newest = seen.items[0] if isinstance(seen, Page) else seen
        assert getattr(newest, "version", newest) == changed.version
        call, changed = changed, update(changed)


async def test_a_read_of_an_open_call_waits_for_no_other_write(store):
    await store.add(call := a_call())
    async with blocked(store.writer.do), blocked(store.reader.read):
        assert await store.get(call.id) == await store.find(call.key) == call
        assert await store.version(call.id) == 1
        assert await store.due(1e12) == [call.id]
        assert (await store.open_counts())[State.PENDING] == 1
        assert await store.open_tasks() == []


async def test_a_key_without_a_call_is_not_searched_in_the_file(store):
    await store._filling
    async with blocked(store.reader.read):
        assert await store.find("k") is None
    await store.add(call := a_call(key="k"))
    await store.swap(call, ended := advance(call, State.DENIED, 1.0))
    assert await store.find("k") == ended


async def test_a_read_of_the_trail_sees_the_posts_before_it(store):
    async with blocked(store.writer.do):
        store.post(an_event("posted"))
        trail = asyncio.ensure_future(store.events())
        await asyncio.sleep(0)
        assert not trail.done()
    assert [event.kind for event in await trail] == ["posted"]


async def test_reads_work_on_a_full_disk(store):
    await store.add(call := a_call(), an_event("first"))
    (pages,) = store.writer._db.execute("PRAGMA page_count").fetchone()
    store.writer._db.execute(f"PRAGMA max_page_count={pages}")
    store.post(an_event("posted", detail={"pad": "x" * 100_000}))
    with pytest.raises(StoreError, match="disk is full"):
        await store.append(an_event())
    assert await store.get(call.id) == call
    assert [event.kind for event in await store.events()] == ["first"]
    store.writer._db.execute("PRAGMA max_page_count=100000")
    assert [event.kind for event in await store.events()] == ["first", "posted"]


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM calls", "PRAGMA user_version=7", "CREATE TEMP TABLE t (n)", "PRAGMA journal_mode=DELETE"],
)
async def test_a_read_cannot_write(path, statement):
    store = await SqliteStore.open(path)
    await store.add(a_call())
    with pytest.raises(StoreError):
        await store.reader.read(lambda db: db.execute(statement).fetchall())
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM calls").fetchone() == (1,)
        assert db.execute("PRAGMA user_version").fetchone() == (0,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_the_reader_opens_the_file_read_only(path):
    """`query_only` alone would allow a checkpoint."""
    store = await SqliteStore.open(path)
    await store.reader.read(lambda db: db.execute("PRAGMA query_only=OFF") and None)
    with pytest.raises(StoreError, match="attempt to write a readonly database"):
        await store.reader.read(lambda db: db.execute("UPDATE probe SET writes = 7") and None)
    await store.close()


async def test_the_reader_does_not_trust_the_schema_or_the_pages_of_the_file(store):
    names = ("query_only", "trusted_schema", "cell_size_check", "busy_timeout")

    def settings(db):
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await store.reader.read(settings) == [1, 0, 1, 5000]


async def test_no_call_is_written_to_a_temporary_file(store):
    """A large change needs its own journal until the job is done, and a large sort needs room."""
    await asyncio.gather(*(store.add(a_call()) for _ in range(300)))

    def change(db):
        db.execute("UPDATE summaries SET summary = zeroblob(5000)")
        return [name for file in Path("/dev/fd").iterdir() if "etilqs" in (name := os.path.realpath(file))]

    assert await store.writer.do(change) == []
    for run in (store.writer.do, store.reader.read):
        assert await run(lambda db: db.execute("PRAGMA temp_store").fetchone()) == (2,)


@pytest.mark.parametrize("error", [sqlite3.OperationalError, sqlite3.InternalError, sqlite3.DatabaseError])
async def test_a_read_that_finds_the_disk_or_the_file_bad_stops_the_store(path, error):
    store = await SqliteStore.open(path)

    def unlucky(_):
        raise error("disk I/O error")

    said = "The store failed (disk I/O error) and accepts no more work; repair it and restart."
    async with blocked(store.reader.read):
        later = [asyncio.ensure_future(one) for one in (store.reader.read(unlucky), store.summaries())]
        await asyncio.sleep(0)
    told = await asyncio.gather(*later, return_exceptions=True)
    told += await asyncio.gather(
        store.check(), store.append(an_event()), store.select(), return_exceptions=True
    )
    assert [str(one) for one in told] == [said] * 5
    with pytest.raises(StoreError, match="accepts no more work"):
        store.post(an_event())
    await store.close()


async def test_a_read_with_bad_values_fails_alone(store):
    def bug(_):
        raise KeyError("gone")

    with pytest.raises(StoreError, match=r"^The store refused this: 'gone'\.$") as refused:
        await store.reader.read(bug)
    assert isinstance(refused.value.__cause__, KeyError)
    assert (await store.select()).items == []


@pytest.mark.parametrize("error", [StoreError("a changed call"), KeyError("gone")])
@pytest.mark.parametrize("nested", [False, True])
async def test_a_read_that_fails_half_way_leaves_no_snapshot_to_later_reads(store, error, nested):
    """The test keeps the error and its frames, as a log or a reference cycle may."""
    for _ in range(3):
        await store.append(an_event())

    def half(db):
        rows = db.execute("SELECT * FROM events")
        next(rows)
        raise error

    def work(db):
        if not nested:
            half(db)
        try:
            half(db)
        except Exception as cause:
            raise ValueError from cause

    with pytest.raises(StoreError) as kept:
        await store.reader.read(work)
    await store.append(an_event())
    assert len(await store.events()) == 4
    assert kept


async def test_a_read_of_a_busy_file_fails_alone(store):
    def busy(_):
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
        raise error

    with pytest.raises(StoreError) as refused:
        await store.reader.read(busy)
    assert str(refused.value) == "The store could not be read (database is locked). Try again later."
    assert (await store.select()).items == []


async def test_reads_beyond_the_limit_are_refused_even_if_earlier_callers_left(store, monkeypatch):
    monkeypatch.setattr(reader_module, "MAX_WAITING", 5)
    async with blocked(store.reader.read):
        waiting = [asyncio.ensure_future(store.select()) for _ in range(4)]
        await asyncio.sleep(0)
        for one in waiting[:2]:
            one.cancel()
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        with pytest.raises(StoreError, match=r"^The store cannot keep up: too many reads are waiting\."):
            (await store.select()).items
        await store.append(an_event())
    assert await asyncio.gather(*waiting[2:]) == [Page([], None)] * 2
    assert (await store.select()).items == []


async def test_a_closing_store_answers_the_waiting_reads_and_leaves_no_wal(path):
    store = await SqliteStore.open(path)
    await store.add(call := a_call())
    async with blocked(store.reader.read) as long:
        last = asyncio.ensure_future(store.get(call.id))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match=r"^The store is closed\.$"):
            await store.get(call.id)
        assert not closing.done()
    await asyncio.gather(long, closing)
    assert await last == call
    assert sorted(one.name for one in path.parent.iterdir()) == ["okayed.db", "okayed.db.lock"]
    await store.close()
