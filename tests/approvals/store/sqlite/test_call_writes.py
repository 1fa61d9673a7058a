"""Writes that share a batch: one open call of each key, events in order, and each failure undoes only itself."""

import asyncio
from random import Random

import pytest

from approvals.audit import encode_event, verify
from approvals.errors import Conflict, StoreError
from approvals.lifecycle import OPEN_OR_IN_DOUBT, advance
from approvals.model import CallLimit, State
from approvals.store.sqlite import writer
from approvals.store.sqlite.call_writes import encode_change, encode_new, insert_calls, swap_calls
from approvals.store.sqlite.seal import Seal
from replacing import replace
from store_fixtures import a_call, an_event, open_sqlite

SEAL = Seal(b"")
PREFIX = "0123456789abcdef"


@pytest.fixture
async def store(tmp_path):
    async with open_sqlite(tmp_path / "okayed.db") as store:
        yield store


async def insert(store, *calls):
    """Insert calls by one statement, without the checks of the store's memory."""
    new = [encode_new(call, SEAL) for call in calls]
    await store.writer.do(lambda db: insert_calls(db, new))


async def test_a_statement_with_two_open_calls_of_a_key_is_refused_whole(store):
    with pytest.raises(Conflict):
        await insert(store, a_call(), a_call(key="k"), a_call(key="k"), a_call())
    assert (await store.select()).items == []
    await insert(
        store, a_call(key="k", state=State.DENIED), a_call(key="k"), a_call(key="k", state=State.EXPIRED)
    )
    with pytest.raises(Conflict):
        await insert(store, a_call(key="k", state=State.IN_DOUBT))


@pytest.mark.parametrize("stored", sorted(OPEN_OR_IN_DOUBT))
async def test_the_file_takes_no_open_call_beside_one_in_any_open_state(store, stored):
    await insert(store, a_call(key="k", state=stored))
    for state in sorted(OPEN_OR_IN_DOUBT):
        with pytest.raises(Conflict):
            await insert(store, a_call(key="k", state=state))
    await insert(store, a_call(key="k", state=State.COMPLETED))


async def test_two_calls_of_one_id_are_refused(store):
    call = a_call()
    with pytest.raises(Conflict):
        await insert(store, call, replace(call, key="other"))


async def test_keys_that_begin_alike_are_different_keys(store):
    calls = [a_call(key=PREFIX + end) for end in ("", "x", "y")]
    for call in calls:
        await store.add(call)
    for call in calls:
        await store.swap(call, advance(call, State.DENIED, 1.0))
        again = a_call(key=call.key)
        await store.add(again)
        assert await store.find(call.key) == again
    assert await store.find(PREFIX + "z") is None
    with pytest.raises(Conflict):
        await insert(store, a_call(key=PREFIX + "x"))
    for call in calls:  # in the file as well as in memory
        newest = await store.find(call.key)
        await store.swap(newest, ended := advance(newest, State.DENIED, 2.0))
        assert await store.find(call.key) == ended


async def test_two_changes_of_one_version_are_refused_together(store):
    call = a_call()
    await store.add(call)
    changes = [
        encode_change(call, advance(call, state, 1.0), SEAL) for state in (State.APPROVED, State.DENIED)
    ]
    with pytest.raises(Conflict):
        await store.writer.do(lambda db: swap_calls(db, changes))


REFUSED = """
    CREATE TRIGGER refused BEFORE INSERT ON events WHEN NEW.kind = 'bad' BEGIN SELECT RAISE(ABORT, 'refused'); END
"""


@pytest.mark.parametrize("seed", range(12))
async def test_events_of_one_batch_keep_the_order_in_which_they_were_requested(store, seed):
    await store.writer.do(lambda db: db.execute(REFUSED) and None)
    known = [a_call() for _ in range(20)]
    await asyncio.gather(*(store.add(call) for call in known))

    async def post(kind):
        store.post(an_event(kind))

    async def post_entry(kind):
        store.post_entry(encode_event(an_event(kind)))

    async def append(kind):
        await store.append(an_event(kind))

    async def work(kind):
        await store.writer.do(lambda _: None, encode_event(an_event(kind)))

    async def add(kind):
        await store.add(call := a_call(), an_event(kind, call=call.id))

    async def swap(kind):
        call = known.pop()
        await store.swap(call, advance(call, State.DENIED, 1.0), an_event(kind, call=call.id))

    random, wanted, jobs = Random(seed), [], []
    for n in range(60):
        job = random.choice([post, post_entry, append, work, add, swap if n < 20 else add])
        fails = job not in {post, post_entry} and random.random() < 0.1
        jobs.append(job("bad" if fails else f"event {n}"))
        wanted += [] if fails else [f"event {n}"]
    told = await asyncio.gather(*jobs, return_exceptions=True)
    assert told.count(None) == len(wanted)
    assert all(one is None or "refused" in str(one) for one in told)
    events = await store.events()
    assert [event.kind for event in events] == wanted
    assert verify(events) is None


async def test_the_highest_time_of_a_batch_is_kept(store):
    calls = [a_call(created_at=at) for at in (1000.0, 3000.0, 2000.0)]
    await asyncio.gather(*map(store.add, calls))
    assert await store.highest_time() == 3000.0
    settled = [
        advance(call, State.DENIED, at) for call, at in zip(calls, (3100.0, 3300.0, 3200.0), strict=True)
    ]
    await asyncio.gather(*map(store.swap, calls, settled))
    assert await store.highest_time() == 3300.0


async def test_a_call_beyond_the_limit_of_waiting_writes_takes_no_room(store, monkeypatch):
    monkeypatch.setattr(writer, "MAX_WAITING", 2)
    calls, limits = [a_call() for _ in range(5)], [CallLimit(most=3)]
    told = await asyncio.gather(*(store.add(call, limits=limits) for call in calls), return_exceptions=True)
    assert list(map(type, told)) == [type(None)] * 2 + [StoreError] * 3
    assert (store._open.usage.calls[""], len(store._in_flight._writes)) == (2, 0)
    await store.add(calls[2], limits=limits)
    told = await asyncio.gather(
        *(store.swap(call, advance(call, State.DENIED, 1.0)) for call in calls[:3]), return_exceptions=True
    )
    assert list(map(type, told)) == [type(None)] * 2 + [StoreError]
    assert await store.get(calls[2].id) == calls[2]


async def test_posted_events_that_a_full_disk_delays_keep_their_order(store):
    def fill(db):
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count={pages}")

    async def post(n):
        store.post(an_event(f"event {n}", detail={"x": "x" * 20_000}))

    await store.writer.do(fill)
    told = await asyncio.gather(
        *(job for n in range(5) for job in (post(n), store.append(an_event("lost")))), return_exceptions=True
    )
    assert [one for one in told if one is None] == [None] * 5
    assert sum("full" in str(one) for one in told) == 5
    await post(5)
    store.writer._db.execute("PRAGMA max_page_count=1000000")
    await post(6)
    events = await store.events()
    assert [event.kind for event in events] == [f"event {n}" for n in range(7)]
    assert verify(events) is None
