import asyncio
import gc
import resource
import sqlite3
import tracemalloc
from contextlib import closing

import pytest

from approvals import audit
from approvals.errors import Conflict, QuotaExceeded, StoreError
from approvals.identity import Directory
from approvals.lifecycle import OPEN_OR_IN_DOUBT, advance, update
from approvals.model import AgentSession, CallId, CallLimit, LoginSession, Notice, OneTimeCode, State
from approvals.service import ApprovalService
from approvals.store.open_calls import MAX_KEPT
from approvals.store.sqlite import calls as calls_module
from approvals.store.sqlite import read_only, schema
from approvals.store.sqlite.store import SqliteStore
from approvals.summaries import size, summarize
from hang import HANG
from replacing import replace
from store_fixtures import a_call, a_full_call, an_event, open_sqlite

FINAL = [state for state in State if state not in OPEN_OR_IN_DOUBT]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "okayed.db"


@pytest.fixture
async def store(path):
    async with open_sqlite(path) as store:
        yield store


def sql(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


async def direct(store, statement, *values):
    """Run a statement directly on the database file."""
    await store.writer.do(lambda db: db.execute(statement, values) and None)


async def test_everything_survives_a_restart(path):
    call = a_full_call()
    notice = Notice(
        call=call.id, channel="slack", ref="m", shown_version=6, shown_attended=True, failures=1, retry_at=2.5
    )
    session = LoginSession(id_sha256="s", approver="alice", created_at=1.0, expires_at=9.0, seen_at=2.0)
    async with open_sqlite(path, chain_key=b"k") as store:
        await store.add(call, an_event("one", detail={"nul": "\x00", "of": [1.0, 1, None, True]}))
        await store.save_notice(notice)
        await store.save_login(session)
        await store.save_code(CODE)
        store.add_hit("limit", 1.0, 9.0)
        store.post(an_event("two"))
    async with open_sqlite(path, chain_key=b"k") as store:
        assert await store.get(call.id) == call
        assert await store.stale_calls("slack", 2.5) == [(summarize(call), notice)]
        assert await store.find_login("s") == session
        assert await store.take_code("c") == CODE
        assert await store.hits(5.0) == [("limit", 1.0, 1)]
        await store.append(an_event("three"))
        events = await store.events()
        assert [event.kind for event in events] == ["one", "two", "three"]
        assert events[0].detail == {"nul": "\x00", "of": [1.0, 1, None, True]}
        assert audit.verify(events, b"k") is None


async def test_an_opened_file_has_no_replicas_locks_or_waiting_clients(path):
    """Its lock proves that the processes of the old leases have ended."""
    async with open_sqlite(path) as store:
        await store.renew_replica("a", 1.0, 31.0)
        assert await store.acquire_lock("channel:slack", "a", 1.0)
        await store.save_presence("a", [CallId("hold_1")], [])
    async with open_sqlite(path) as store:
        assert await store.live_replicas(2.0) == frozenset()
        assert await store.acquire_lock("channel:slack", "b", 2.0)
        assert await store.renew_replica("a", 2.0, 31.0) == frozenset()
        assert await store.find_attended([CallId("hold_1")], 2.0) == frozenset()


async def test_the_schema_lists_every_state(store):
    for state in State:
        await store.add(a_call(state=state))
    assert len((await store.select()).items) == len(State)
    with pytest.raises(StoreError, match="CHECK constraint failed"):
        await direct(store, "UPDATE calls SET state = 'allowed' WHERE n = 1")


@pytest.mark.parametrize("state", FINAL)
async def test_a_settled_call_keeps_its_state_in_any_write(store, state):
    call = a_call(state=state)
    await store.add(call)
    for after in set(State) - {state}:
        with pytest.raises(StoreError, match="a call that came to its end does not change its state"):
            await store.swap(call, replace(call, version=2, state=after), an_event())
    assert await store.get(call.id) == call
    assert await store.events() == []
    fetched = update(call, collected=True)
    await store.swap(call, fetched)
    assert await store.get(call.id) == fetched


@pytest.mark.parametrize("statement", ["UPDATE events SET actor = 'nobody'", "DELETE FROM events"])
async def test_events_cannot_be_changed_or_deleted(store, statement):
    await store.append(an_event())
    with pytest.raises(StoreError, match="the audit trail is only added to"):
        await direct(store, statement)


async def test_a_change_whose_event_is_refused_does_not_happen(store):
    call = a_call()
    await store.add(call)
    await direct(store, "CREATE TRIGGER no BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(StoreError, match="no room"):
        await store.swap(call, advance(call, State.APPROVED, 1.0), an_event())
    with pytest.raises(StoreError, match="no room"):
        await store.append(an_event())
    with pytest.raises((StoreError, Conflict)):
        await store.add(a_call(), an_event())
    assert (await store.select()).items == [call]
    store.post(an_event())
    with pytest.raises(StoreError, match="accepts no more work"):
        await store.check()
    with pytest.raises(StoreError, match="accepts no more work"):
        store.post(an_event())
    with pytest.raises(StoreError, match=r"including audit events, .* closed: 1\."):
        await store.close()


async def test_a_call_that_was_changed_in_the_file_is_not_read(path):
    call = a_call(1, state=State.DENIED)
    async with open_sqlite(path) as store:
        await store.add(call)
        await direct(store, "UPDATE calls SET body = CAST(replace(body, 'denied', 'approved') AS BLOB)")
        for read in (lambda: store.get(call.id), lambda: store.find(call.key), store.select):
            with pytest.raises(StoreError, match=r"A held call was changed in the store"):
                await read()
        assert await store.due(0.0) == []


async def test_a_store_with_a_changed_open_call_does_not_start(path):
    async with open_sqlite(path) as store:
        await store.add(a_call(1))
    sql(
        path, "UPDATE calls SET body = CAST(replace(body, 'pending', 'approved') AS BLOB), state = 'approved'"
    )
    with pytest.raises(StoreError) as refused:
        await SqliteStore.open(path)
    assert str(refused.value) == (
        f"The store {path} cannot be used: A held call was changed in the store, or was written under"
        " another key."
    )


async def test_a_forger_without_the_key_cannot_write_an_approval(path):
    call = a_call(1)
    async with open_sqlite(path, chain_key=b"key") as store:
        await store.add(call)
    async with open_sqlite(path.with_name("forged.db")) as forged:
        await forged.add(advance(call, State.APPROVED, 1.0, expires_at=1e12))
    sql(
        path,
        f"ATTACH '{path.with_name('forged.db')}' AS f",
        "UPDATE calls SET (state, body, seal) = (SELECT state, body, seal FROM f.calls)",
    )
    with pytest.raises(StoreError, match="A held call was changed in the store"):
        await SqliteStore.open(path, chain_key=b"key")


def step(call):
    """The event of a transition, as the service makes it."""
    return an_event(f"hold.{call.state}", call=call.id, detail={"version": call.version, "state": call.state})


PUT_BACK = "The held call hold_00000000000000000000000001 does not match its last audit event."


async def approved_and_run(store):
    """Approve and run a call; return it as it was when approved."""
    call = a_call(1)
    approved = advance(call, State.APPROVED, 1.0, expires_at=1e12)
    await store.add(call, step(call))
    await store.swap(call, approved, step(approved))
    await direct(store, "CREATE TABLE copied AS SELECT * FROM calls")
    running = advance(approved, State.FORWARDING, 2.0)
    await store.swap(approved, running, step(running))
    done = advance(running, State.COMPLETED, 3.0)
    await store.swap(running, done, step(done))
    return approved


AGAIN = ("DROP TRIGGER calls_stay_settled", "INSERT OR REPLACE INTO calls SELECT * FROM copied")


async def test_a_restored_copy_of_an_approval_does_not_run_again(path):
    async with open_sqlite(path, chain_key=b"key") as store:
        approved = await approved_and_run(store)
        for statement in AGAIN:
            await direct(store, statement)
        assert await store.get(approved.id) == approved
        claimed = advance(approved, State.FORWARDING, 4.0)
        with pytest.raises(StoreError) as refused:
            await store.swap(approved, claimed, step(claimed))
        assert str(refused.value) == PUT_BACK
        assert await store.get(approved.id) == approved
    with pytest.raises(StoreError) as refused:
        await SqliteStore.open(path, chain_key=b"key")
    assert str(refused.value) == f"The store {path} cannot be used: {PUT_BACK}"


@pytest.mark.parametrize("chain_key", [b"key", b""])
@pytest.mark.parametrize(
    "changing",
    [
        (
            "UPDATE calls SET (version, state, body, seal) = (c.version, c.state, c.body, c.seal) FROM copied AS c",
        ),
        ("UPDATE calls SET version = 9",),
        ("DELETE FROM summaries", "DELETE FROM calls"),
    ],
)
async def test_an_open_call_that_was_changed_in_the_file_is_refused_and_not_tried_forever(
    path, chain_key, changing
):
    async with open_sqlite(path, chain_key=chain_key) as store:
        call = a_call()
        await store.add(call, step(call))
        await direct(store, "CREATE TABLE copied AS SELECT * FROM calls")
        approved = advance(call, State.APPROVED, 1.0)
        await store.swap(call, approved, step(approved))
        for statement in changing:
            await direct(store, statement)
        claimed = advance(approved, State.FORWARDING, 2.0)
        with pytest.raises(StoreError, match="was changed in the store while the gateway ran"):
            await store.swap(approved, claimed, step(claimed))
        assert await store.get(call.id) == approved
        assert len(await store.events()) == 2


@pytest.mark.parametrize(
    "changing",
    [
        (
            "UPDATE calls SET (version, state, body, seal) = (c.version, c.state, c.body, c.seal) FROM copied AS c",
        ),
        ("DELETE FROM summaries", "DELETE FROM calls"),
    ],
)
async def test_a_large_open_call_that_was_changed_in_the_file_is_not_tried_forever(path, changing):
    async with open_sqlite(path, chain_key=b"key") as store:
        service = ApprovalService(store, Directory([]), clock=lambda: 1000.0)
        call = a_call(arguments=b'"' + b"x" * MAX_KEPT + b'"')
        await store.add(call, step(call))
        await direct(store, "CREATE TABLE copied AS SELECT * FROM calls")
        approved = advance(call, State.APPROVED, 1.0)
        await store.swap(call, approved, step(approved))
        assert await store.get(call.id) == await store.find(call.key) == approved
        for statement in changing:
            await direct(store, statement)
        for attempt in (
            store.get(call.id),
            store.find(call.key),
            service.cancel(call.id, "no", actor="alice"),
        ):
            with pytest.raises(StoreError, match="was changed in the store while the gateway ran"):
                await asyncio.wait_for(attempt, HANG)


async def test_of_two_changes_at_once_of_an_open_call_the_second_is_a_conflict(path):
    async with open_sqlite(path, chain_key=b"key") as store:
        call = a_call()
        await store.add(call, step(call))
        approved, denied = advance(call, State.APPROVED, 1.0), advance(call, State.DENIED, 1.0)
        told = await asyncio.gather(
            store.swap(call, approved, step(approved)),
            store.swap(call, denied, step(denied)),
            store.swap(call, approved, step(approved)),
            return_exceptions=True,
        )
        assert list(map(type, told)) == [type(None), Conflict, Conflict]
        with pytest.raises(Conflict):
            await store.swap(call, denied, step(denied))
        assert await store.get(call.id) == approved


@pytest.mark.parametrize(
    "forging",
    [
        "DELETE FROM events WHERE seq > 2",
        "DELETE FROM events WHERE call IS NOT NULL",
        "UPDATE events SET kind = 'told' WHERE seq > 2",
        "UPDATE events SET call = NULL WHERE seq > 2",
        """UPDATE events SET detail = '{"state":"approved","version":2}' WHERE seq > 2""",
    ],
)
async def test_a_restored_approval_with_a_forged_trail_does_not_run_either(path, forging):
    async with open_sqlite(path, chain_key=b"key") as store:
        await approved_and_run(store)
        await store.append(an_event("later"))
    sql(path, "DROP TRIGGER events_stay", "DROP TRIGGER events_stay_as_they_are", *AGAIN, forging)
    with pytest.raises(StoreError):
        await SqliteStore.open(path, chain_key=b"key")


SESSION = AgentSession(server="notes", id="s", agent="bot", opening=b"{}", at=1.0)
LOGIN = LoginSession(id_sha256="s", approver="alice", created_at=1.0, expires_at=9.0, seen_at=2.0)


@pytest.mark.parametrize(
    "forging",
    [
        "UPDATE logins SET approver = 'bob'",
        "UPDATE logins SET expires_at = 1e12",
        "UPDATE logins SET id_sha256 = 's'",
        "INSERT OR REPLACE INTO logins VALUES ('s', 'bob', 1.0, 1e12, x'', 1.0)",
        "INSERT OR REPLACE INTO logins SELECT 's', 'bob', 1.0, 9.0, seal, seen_at FROM logins",
    ],
)
async def test_a_login_forged_in_the_file_is_invalid(path, forging):
    async with open_sqlite(path, chain_key=b"key") as store:
        await store.save_login(replace(LOGIN, id_sha256="other"))
        await direct(store, forging)
        assert await store.find_login("s") is None


async def test_a_login_stays_valid_when_its_activity_was_changed_in_the_file(path):
    async with open_sqlite(path, chain_key=b"key") as store:
        await store.save_login(LOGIN)
        await direct(store, "UPDATE logins SET seen_at = 1e12")
        assert await store.find_login("s") == replace(LOGIN, seen_at=1e12)


CODE = OneTimeCode(id_sha256="c", approver="alice", created_at=1.0, expires_at=9.0)


@pytest.mark.parametrize(
    "forging",
    [
        "UPDATE codes SET approver = 'bob'",
        "UPDATE codes SET expires_at = 1e12",
        "UPDATE codes SET id_sha256 = 'c'",
        "INSERT INTO codes VALUES ('c', 'bob', 1.0, 1e12, x'')",
        "INSERT INTO codes SELECT 'c', 'bob', 1.0, 9.0, seal FROM logins",
    ],
)
async def test_a_code_forged_in_the_file_is_invalid(path, forging):
    async with open_sqlite(path, chain_key=b"key") as store:
        await store.save_login(replace(LOGIN, approver="bob", id_sha256="c"))
        await store.save_code(replace(CODE, id_sha256="other"))
        await direct(store, forging)
        assert await store.take_code("c") is None


async def test_a_login_from_a_store_without_the_key_is_invalid_under_the_key(path):
    async with open_sqlite(path.with_name("forged.db")) as forged:
        await forged.save_login(LOGIN)
    async with open_sqlite(path, chain_key=b"key"):
        pass
    sql(
        path,
        f"ATTACH '{path.with_name('forged.db')}' AS f",
        "INSERT INTO logins SELECT * FROM f.logins",
    )
    async with open_sqlite(path, chain_key=b"key") as store:
        assert await store.find_login("s") is None


@pytest.mark.parametrize("forging", ["agent = 'other'", "id = 's2'", "opening = x'7b'", "server = 'iam'"])
async def test_a_session_changed_in_the_file_is_invalid(path, forging):
    async with open_sqlite(path, chain_key=b"key") as store:
        await store.save_session(SESSION)
        assert await store.find_session("notes", "s") == SESSION
        await direct(store, f"UPDATE sessions SET {forging}")
        found = [await store.find_session(server, id) for server in ("notes", "iam") for id in ("s", "s2")]
        assert found == [None] * 4


async def test_a_store_whose_newest_events_were_changed_does_not_start(path):
    async with open_sqlite(path) as store:
        await store.append(*(an_event() for _ in range(5)))
    sql(path, "DROP TRIGGER events_stay_as_they_are", "UPDATE events SET actor = 'nobody' WHERE seq = 3")
    with pytest.raises(StoreError) as refused:
        await SqliteStore.open(path)
    assert str(refused.value) == (
        f"The store {path} cannot be used: its audit event 3 was changed, or was written under another key"
        " (its content was changed)."
    )


async def test_a_store_does_not_start_under_another_key(path):
    async with open_sqlite(path, chain_key=b"one") as store:
        await store.append(an_event())
    for other in (b"two", b""):
        with pytest.raises(
            StoreError, match="its audit event 1 was changed, or was written under another key"
        ):
            await SqliteStore.open(path, chain_key=other)
    async with open_sqlite(path, chain_key=b"one") as store:
        assert len(await store.events()) == 1


async def test_a_cancelled_start_releases_the_file(path):
    for steps in range(30):
        start = asyncio.ensure_future(SqliteStore.open(path))
        for _ in range(steps):
            await asyncio.sleep(0)
        start.cancel()
        (told,) = await asyncio.gather(start, return_exceptions=True)
        if isinstance(told, SqliteStore):
            await told.close()
    async with open_sqlite(path) as store:
        await store.check()


async def test_a_write_refused_by_the_disk_is_not_acknowledged_nor_is_any_later_write(path):
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    acknowledged = 0
    async with open_sqlite(path) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, most))
        try:
            with pytest.raises(
                StoreError, match=r"The store failed \(disk I/O error\) and accepts no more work"
            ):
                while True:
                    await store.append(an_event(detail={"pad": "x" * 1000}))
                    acknowledged += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        for refused in (
            store.append(an_event()),
            store.add(a_call()),
            store.get(CallId("hold_1")),
            store.check(),
        ):
            with pytest.raises(StoreError, match="accepts no more work"):
                await refused
        with pytest.raises(StoreError, match="accepts no more work"):
            store.post(an_event())
    assert acknowledged > 20
    async with open_sqlite(path) as store:
        assert acknowledged <= len(await store.events()) <= acknowledged + 1
        assert audit.verify(await store.events()) is None


async def test_a_file_locked_by_another_program_is_waited_for_then_refused_and_works_again(store, path):
    store.writer._db.execute("PRAGMA busy_timeout=1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as refused:
            await store.append(an_event("refused"))
        assert str(refused.value) == "The store could not write (database is locked); nothing was changed."
        store.post(an_event("posted"))
        assert await store.events() == []
        other.execute("ROLLBACK")
    await store.append(an_event("after"))
    assert [event.kind for event in await store.events()] == ["posted", "after"]


async def test_sweeps_limits_lists_and_channel_rounds_read_no_bodies(store):
    service = ApprovalService(store, Directory([]), clock=lambda: 1000.0)
    for n in range(3):
        await store.add(a_call(key=f"k{n}", arguments=b"[" + b"1," * 40_000 + b"1]"))
    read = []

    def authorize(action, table, column, *_):
        if (action, table) == (sqlite3.SQLITE_READ, "calls"):
            read.append(column)
        return sqlite3.SQLITE_OK

    for run in (store.reader.read, store.writer.do):
        await run(lambda db: db.set_authorizer(authorize))
    await service.sweep()
    assert len(await service.open_calls()) == 3
    assert len((await store.summaries(text="hold")).items) == len(await store.stale_calls("slack", 1.0)) == 3
    assert len(await store.due(1e9)) == 3
    await store.version(CallId("hold_1"))
    assert "version" in read
    assert "body" not in read
    with pytest.raises(QuotaExceeded):
        await store.add(a_call(key="over"), limits=[CallLimit(most=3)])
    assert "body" not in read
    (await store.select()).items
    assert "body" in read


async def test_a_store_without_summaries_gets_them_at_the_start(path, monkeypatch):
    monkeypatch.setattr(calls_module, "SUMMARIES_PER_COMMIT", 2)
    calls = [a_call(arguments=b"[%d]" % n, state=state) for n, state in enumerate(State)]
    async with open_sqlite(path, chain_key=b"key") as store:
        for call in calls:
            await store.add(
                call, an_event(call=call.id, kind="hold.x", detail={"version": 1, "state": call.state})
            )
        await direct(store, "DELETE FROM summaries")
    sql(path, "UPDATE calls SET body = x'00' WHERE n = 3")
    async with open_sqlite(path, chain_key=b"key") as store:
        rows = await store.reader.read(
            lambda db: db.execute("SELECT n, state, agent, size FROM summaries ORDER BY n").fetchall()
        )
        assert [row[:3] for row in rows] == [(n, call.state, "bot") for n, call in enumerate(calls, 1)]
        assert rows[0][3] == size(calls[0])
        assert (await store.summaries([State.PENDING])).items == [summarize(calls[0])]
        assert len((await store.summaries(before=calls[2].id)).items) == 2
        with pytest.raises(StoreError, match="was changed in the store"):
            (await store.summaries()).items


def to_older_summaries(path):
    """Leave the file as a version left it whose summaries had no names."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("ALTER TABLE summaries RENAME TO newer")
        for statement in schema.MIGRATIONS["summaries"]:
            db.execute(statement)
        db.execute(
            "INSERT INTO summaries SELECT n, state, agent, created_at, size, summary, seal FROM newer ORDER BY n"
        )
        db.execute("DROP TABLE newer")
        db.execute("DELETE FROM _sqlite_migrations WHERE name = 'summaries_for_lists'")


async def test_the_summaries_of_an_older_version_get_the_names_of_their_calls(path):
    task = a_call(agent="ann", server="two", tool="read", task=True)
    other = a_call(agent='"task":true', state=State.DENIED)
    async with open_sqlite(path) as store:
        for call in (task, other, missing := a_call()):
            await store.add(call)
        await direct(store, "DELETE FROM summaries WHERE n = 3")
    to_older_summaries(path)
    async with open_sqlite(path) as store:
        assert await store.open_tasks() == [task.id]
        assert await store.open_summaries() == list(map(summarize, (missing, task)))
        assert await store.open_summaries(server="two", tool="read") == [summarize(task)]
        rows = await store.reader.read(
            lambda db: db.execute("SELECT id, agent, server, tool, task FROM summaries ORDER BY n").fetchall()
        )
        assert rows[0] == (task.id, "ann", "two", "read", 1)
        assert rows[1] == (other.id, other.call.agent, "github", "delete_repo", 0)


async def test_a_summary_that_was_changed_in_the_file_is_not_read(path):
    async with open_sqlite(path) as store:
        await store.add(a_call())
        await direct(store, "UPDATE summaries SET summary = CAST(replace(summary, 'bot', 'bat') AS BLOB)")
        with pytest.raises(StoreError, match="was changed in the store"):
            (await store.summaries()).items


async def test_open_calls_are_verified_one_by_one_at_the_start(path):
    """Together they may be larger than the memory, and then every start would fail."""
    one = 1 << 20
    async with open_sqlite(path) as store:
        for n in range(12):
            await store.add(a_call(key=f"k{n}", arguments=b'"' + b"x" * one + b'"'))
    tracemalloc.start()
    try:
        async with open_sqlite(path):
            assert tracemalloc.get_traced_memory()[1] < 8 * one
    finally:
        tracemalloc.stop()


async def test_refused_calls_leave_nothing_in_memory_or_in_the_file(store, path):
    """An agent may repeat large calls; the garbage collector runs rarely, because they are few objects."""
    one, full = 1 << 20, [CallLimit(most=0)]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for n in range(20):
            with pytest.raises(QuotaExceeded):
                await store.add(a_call(key=f"k{n}", arguments=b'"' + b"x" * one + b'"'), limits=full)
        await store.check()
        assert tracemalloc.get_traced_memory()[0] < 4 * one
    finally:
        tracemalloc.stop()
        gc.enable()
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 4 * one


async def test_a_conflict_is_reported_before_a_limit(store):
    await store.add(call := a_call(key="k"))
    for other in (a_call(key="k"), replace(a_call(key="other"), id=call.id)):
        with pytest.raises(Conflict):
            await store.add(other, limits=[CallLimit(most=1)])


async def test_the_id_of_a_settled_call_is_a_conflict_before_a_limit_is(store):
    call = a_call()
    await store.add(call)
    await store.swap(call, advance(call, State.DENIED, 1.0))
    with pytest.raises(Conflict):
        await store.add(replace(call, key="other"), limits=[CallLimit(most=0)])


async def test_the_file_refuses_a_second_open_call_of_a_key(store):
    copy = """
        INSERT INTO calls SELECT 2, 'hold_other', version, state, key, digest, agent, server, tool, created_at,
        expires_at, settled_at, body, seal FROM calls
    """
    await store.add(call := a_call(key="k"))
    with pytest.raises(StoreError, match="an open call has this key"):
        await direct(store, copy)
    await store.swap(call, advance(call, State.DENIED, 1.0))
    await direct(store, copy)


async def test_a_notice_of_a_missing_call_is_refused(store):
    with pytest.raises(StoreError):
        await store.save_notice(Notice(call=CallId("hold_no"), channel="slack"))


async def test_a_call_that_cannot_be_encoded_is_refused(store):
    with pytest.raises(StoreError, match=r"^The call hold_\d+ cannot be written"):
        await store.add(a_call(reason="\ud800"))


async def test_posted_events_are_in_the_file_when_the_store_is_closed(path):
    async with open_sqlite(path) as store:
        for _ in range(1000):
            store.post(an_event())
    assert len(list(read_only.read_trail(path))) == 1000
