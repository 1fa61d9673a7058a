"""The open calls in memory equal the rows after any sequence of writes, also of writes that fail."""

import asyncio
import tempfile
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals.audit import verify
from approvals.errors import ApprovalError, Conflict, QuotaExceeded, StoreError
from approvals.lifecycle import OPEN, OPEN_OR_IN_DOUBT, TIMED, TRANSITIONS, advance, update
from approvals.model import CallLimit, Outcome, State
from approvals.store.open_calls import MAX_KEPT, OpenCalls, open_call
from approvals.store.sqlite.store import SqliteStore
from approvals.summaries import size
from replacing import replace
from store_fixtures import a_call, an_event

AGENTS = ("ann", "bo")
KEYS = tuple(f"key {n}" for n in range(6))
LIMITS = [
    CallLimit(most=3, agent="ann"),
    CallLimit(most=5),
    CallLimit(most=16_000, agent="ann", in_bytes=True),
    CallLimit(most=24_000, in_bytes=True),
]

ADDS = st.tuples(
    st.just("add"),
    st.sampled_from(AGENTS),
    st.sampled_from(KEYS),
    st.sampled_from([10, MAX_KEPT - 1, MAX_KEPT + 1]),
    st.booleans(),
)
SWAPS = st.tuples(
    st.just("swap"), st.integers(0, 30), st.sampled_from([None, *State]), st.booleans(), st.booleans()
)
#: Writes that are requested together; the disk is full or not.
TURNS = st.lists(
    st.tuples(
        st.lists(st.one_of(ADDS, SWAPS), min_size=1, max_size=6), st.sampled_from([False, False, True])
    ),
    max_size=8,
)


@asynccontextmanager
async def opened(path):
    store = await SqliteStore.open(path, chain_key=b"key")
    try:
        await store.writer.do(
            lambda db: (
                db.execute(
                    "CREATE TRIGGER IF NOT EXISTS refused BEFORE INSERT ON events WHEN NEW.detail LIKE '%refused%'"
                    " BEGIN SELECT RAISE(ABORT, 'refused'); END"
                )
                and None
            )
        )
        yield store
    finally:
        await store.close()


def event_of(call, *, refused):
    detail = {"version": call.version, "state": call.state} | ({"refused": True} if refused else {})
    return an_event(f"hold.{call.state}", call=call.id, detail=detail)


class Run:
    """Random writes to one store, by two callers that read and swap the same calls."""

    def __init__(self, store):
        self.store = store
        #: The values that callers know; some are outdated.
        self.known = []
        self.clock = 1000.0

    def write(self, what):
        return self.add(*what[1:]) if what[0] == "add" else self.swap(*what[1:])

    async def add(self, agent, key, length, refused):
        self.clock += 100.0
        call = a_call(
            agent=agent, key=key, arguments=b'"' + b"x" * length + b'"', created_at=self.clock,
            expires_at=self.clock + length, task=length == 10,
        )  # fmt: skip
        hourly = CallLimit(most=40_000, agent=agent, in_bytes=True, since=self.clock - 800.0)
        await self.store.add(call, event_of(call, refused=refused), limits=[*LIMITS, hourly])
        self.known.append(call)

    async def swap(self, number, state, refused, forget):
        if not self.known:
            return
        place = number % len(self.known)
        old = self.known[place]
        if state is None:
            new = update(old, note="changed")
        elif state in TRANSITIONS[old.state]:
            new = advance(old, state, self.clock)
        else:
            return
        await self.store.swap(old, new, event_of(new, refused=refused))
        if not forget:
            self.known[place] = new

    async def turn(self, writes, *, full):
        writer = self.store.writer
        if full:
            await writer.do(limit_pages)
        told = await asyncio.gather(*map(self.write, writes), return_exceptions=True)
        if full:
            self.store.writer._db.execute("PRAGMA max_page_count=1000000")
        for one in told:
            assert one is None or isinstance(one, ApprovalError), one
            assert not isinstance(one, StoreError) or "refused" in str(one) or "full" in str(one), one
        await self.check()

    async def check(self):
        store, memory = self.store, self.store._open
        calls = list(reversed((await store.select()).items))
        waiting = [call for call in calls if call.state in OPEN_OR_IN_DOUBT]
        assert list(memory.by_id.values()) == list(map(open_call, waiting))
        assert memory.by_key == {call.key: open_call(call) for call in waiting}
        assert memory._tasks == {call.id for call in waiting if call.state in OPEN and call.task}
        limited = [call for call in calls if call.state in OPEN]
        count, bytes_ = Counter(), Counter()
        for call in limited:
            for name in (call.call.agent, ""):
                count[name] += 1
                bytes_[name] += size(call)
        assert memory.usage.calls == count
        assert memory.usage.bytes == bytes_
        self.check_recent(calls)
        assert not store._in_flight._writes
        assert not store._in_flight._ended
        for call in calls:
            assert await store.get(call.id) == call
            assert await store.version(call.id) == call.version
            assert await store.find(call.key) == next(one for one in reversed(calls) if one.key == call.key)
        timed = sorted(
            (call for call in calls if call.state in TIMED), key=lambda one: (one.expires_at, one.id)
        )
        assert await store.due(1e12) == await store.due(1e12) == [call.id for call in timed]
        assert await store.open_tasks() == [call.id for call in limited if call.task]
        assert await store.open_counts() == {
            state: sum(call.state is state for call in calls) for state in OPEN_OR_IN_DOUBT
        }

    def check_recent(self, calls):
        recent = self.store._recent
        assert not recent._new_calls
        assert not recent._new_bytes
        for agent, window in recent._windows.items():
            found = [call for call in calls if call.call.agent == agent and call.created_at > window.since]
            assert (window.calls, window.bytes) == (len(found), sum(map(size, found)))


def limit_pages(db):
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count={pages}")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(TURNS)
def test_open_calls_and_limits_in_memory_equal_the_rows(turns):
    async def run():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "okayed.db"
            async with opened(path) as store:
                running = Run(store)
                for writes, full in turns:
                    await running.turn(writes, full=full)
                before = store._open
            async with opened(path) as store:
                assert store._open.by_id == before.by_id
                assert store._open.usage.calls == before.usage.calls
                assert store._open.usage.bytes == before.usage.bytes
                await Run(store).check()
                assert verify(await store.events(limit=100_000), b"key") is None

    asyncio.run(run())


async def test_a_write_that_fails_in_the_middle_of_a_batch_undoes_only_itself(tmp_path):
    async with opened(tmp_path / "okayed.db") as store:
        calls = [a_call(key=f"k{n}") for n in range(9)]
        told = await asyncio.gather(
            *(store.add(call, event_of(call, refused=n == 4)) for n, call in enumerate(calls)),
            return_exceptions=True,
        )
        assert [type(one) for one in told] == [StoreError if n == 4 else type(None) for n in range(9)]
        assert [call.id for call in reversed((await store.select()).items)] == [
            call.id for n, call in enumerate(calls) if n != 4
        ]
        assert len(await store.events()) == 8
        again = replace(calls[4], version=1)
        await store.add(again, event_of(again, refused=False))
        assert (await store.open_counts())[State.PENDING] == 9


async def test_the_room_of_a_call_that_could_not_be_written_is_given_back(tmp_path):
    async with opened(tmp_path / "okayed.db") as store:
        one = [CallLimit(most=1)]
        await store.writer.do(limit_pages)
        large = a_call(arguments=b'"' + b"x" * 100_000 + b'"')
        writing = asyncio.ensure_future(store.add(large, limits=one))
        await asyncio.sleep(0)
        try:
            await store.add(a_call(), limits=one)
        except QuotaExceeded:
            pass
        else:
            raise AssertionError("the room of the first call was not taken")
        try:
            await writing
        except StoreError as error:
            assert "full" in str(error)
        await store.writer.do(lambda db: db.execute("PRAGMA max_page_count=1000000") and None)
        await store.add(large, limits=one)


async def test_the_window_of_recent_calls_moves_with_the_time(tmp_path):
    async with opened(tmp_path / "okayed.db") as store:
        running, most = Run(store), 3

        async def add(at):
            limit = CallLimit(most=most, agent="ann", since=at - 250.0)
            await store.add(a_call(agent="ann", created_at=at), limits=[limit])
            running.check_recent((await store.select()).items)

        for at in range(1000, 2000, 100):
            await add(float(at))
        for at in (1910.0, 1340.0):  # the second one after the clock was set back
            with pytest.raises(QuotaExceeded):
                await add(at)
        await add(2100.0)
        with pytest.raises(QuotaExceeded):  # the window has room, but the calls before it are recent again
            await add(1340.0)


async def test_a_call_made_at_the_start_of_the_window_is_not_recent(tmp_path):
    async with opened(tmp_path / "okayed.db") as store:
        limit = CallLimit(most=1, agent="ann", since=1000.0)
        for _ in range(3):
            await store.add(a_call(agent="ann", created_at=1000.0), limits=[limit])
        await store.add(a_call(agent="ann", created_at=1000.1), limits=[limit])
        with pytest.raises(QuotaExceeded):
            await store.add(a_call(agent="ann", created_at=1000.0), limits=[limit])
        Run(store).check_recent((await store.select()).items)


async def test_two_moves_of_a_window_at_once_count_each_call_once(tmp_path):
    async with opened(tmp_path / "okayed.db") as store:
        for at in range(1000, 1010):
            limit = CallLimit(most=10, agent="ann", since=999.0)
            await store.add(a_call(agent="ann", created_at=float(at)), limits=[limit])
        told = await asyncio.gather(
            *(
                store.add(
                    a_call(agent="ann", created_at=1010.0),
                    limits=[CallLimit(most=6, agent="ann", since=since)],
                )
                for since in (1004.0, 1005.0, 1004.0, 1006.0, 1003.0)
            ),
            return_exceptions=True,
        )
        assert {type(one) for one in told} == {type(None), QuotaExceeded}
        Run(store).check_recent((await store.select()).items)


async def test_a_second_call_of_a_key_waits_for_the_first_and_then_conflicts(tmp_path):
    async with opened(tmp_path / "okayed.db") as store:
        told = await asyncio.gather(
            *(store.add(a_call(key="k"), limits=[CallLimit(most=1)]) for _ in range(5)),
            return_exceptions=True,
        )
        assert list(map(type, told)) == [type(None), *[Conflict] * 4]


def test_a_call_with_a_large_answer_is_not_kept_in_memory():
    outcome = Outcome(is_error=False, body=b'"' + b"x" * MAX_KEPT + b'"')
    assert open_call(a_call(state=State.IN_DOUBT, outcome=outcome)).call is None


def test_outdated_deadlines_do_not_pile_up():
    calls = OpenCalls()
    call = a_call()
    calls.load([open_call(call)])
    for n in range(100_000):
        calls.replace(call := update(call, expires_at=float(n)))
    assert len(calls._deadlines) < 3000
    assert calls.due(99_998.0) == []
    assert calls.due(99_999.0) == [call.id]
