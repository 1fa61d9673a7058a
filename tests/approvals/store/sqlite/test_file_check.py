"""The check of a store's whole file, on command."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from approvals.errors import StoreError
from approvals.lifecycle import advance, update
from approvals.model import AgentSession, LoginSession, OneTimeCode, State
from approvals.store.sqlite import file_check
from approvals.store.sqlite.file_check import check_file
from store_fixtures import a_call, an_event, open_sqlite

KEY = b"key"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "okayed.db"


def open_sealed(path, chain_key=KEY):
    return open_sqlite(path, chain_key=chain_key)


def step(call):
    return an_event(f"hold.{call.state}", call=call.id, detail={"version": call.version, "state": call.state})


async def fill(store):
    """Write three calls, one of them denied, four events, and a row of each other sealed table."""
    for number in (1, 2, 3):
        call = a_call(number)
        await store.add(call, step(call))
    denied = advance(call, State.DENIED, 1.0)
    await store.swap(call, denied, step(denied))
    await store.save_login(
        LoginSession(id_sha256="x", approver="alice", created_at=1.0, expires_at=9.0, seen_at=1.0)
    )
    await store.save_code(OneTimeCode(id_sha256="x", approver="bob", created_at=1.0, expires_at=9.0))
    await store.save_session(AgentSession(server="notes", id="s", agent="bot", opening=b"{}", at=1.0))


async def filled(path):
    async with open_sealed(path) as store:
        await fill(store)


def sql(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def lines(path, key=KEY):
    return list(map(str, check_file(path, key).findings))


async def test_an_intact_file_has_no_findings_and_is_not_changed(path):
    await filled(path)
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}
    report = check_file(path, KEY)
    assert (report.calls, report.events, report.findings) == (3, 4, [])
    assert {
        file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()
    } == before


async def test_a_file_is_checked_beside_a_running_gateway(path):
    async with open_sealed(path) as store:
        await fill(store)
        assert (check_file(path, KEY).calls, check_file(path, KEY).findings) == (3, [])
        await store.append(an_event())
        assert check_file(path, KEY).events == 5


async def test_a_check_reads_one_snapshot_of_a_file_that_grows(path, monkeypatch):
    count = file_check._count_rows
    grow = "INSERT INTO events SELECT seq + 4, at, kind, actor, call, agent, server, tool, detail, prev, hash FROM events"
    async with open_sealed(path) as store:
        await fill(store)
        monkeypatch.setattr(file_check, "_count_rows", lambda db: sql(path, grow) or count(db))
        assert check_file(path, KEY).events == 4


FIRST = f"hold_{1:026d}"
OR_KEY = "if store_key is the key that wrote the store, restore a good copy."
RESTORED = "restore the right files with their -wal, or continue with this one: okayed run --restored."
CHANGES = {
    "a call": (
        "UPDATE calls SET body = CAST(body || ' ' AS BLOB) WHERE n = 1",
        f"Held call {FIRST} does not match its seal: {OR_KEY}",
    ),
    "a call's state": (
        "UPDATE calls SET state = 'approved' WHERE n = 1",
        f"Held call {FIRST} was changed outside its sealed part: restore a good copy.",
    ),
    "a call's key": (
        "UPDATE calls SET key = 'other' WHERE n = 1",
        f"Held call {FIRST} was changed outside its sealed part: restore a good copy.",
    ),
    "a call's deadline": (
        "UPDATE calls SET expires_at = 9e9 WHERE n = 1",
        f"Held call {FIRST} was changed outside its sealed part: restore a good copy.",
    ),
    "an older version of a call": (
        "DELETE FROM events WHERE seq = 1",
        f"Held call {FIRST} does not match its last audit event: restore a good copy.",
    ),
    "a summary": (
        "UPDATE summaries SET summary = CAST(summary || ' ' AS BLOB) WHERE n = 1",
        f"The summary of held call {FIRST} does not match its seal: {OR_KEY}",
    ),
    "a summary's agent": (
        "UPDATE summaries SET agent = 'eve' WHERE n = 1",
        f"The summary of held call {FIRST} does not match the call: restore a good copy.",
    ),
    "a summary's size": (
        "UPDATE summaries SET size = 1 WHERE n = 1",
        f"The summary of held call {FIRST} does not match the call: restore a good copy.",
    ),
    "the summary of another call": (
        "UPDATE summaries SET (summary, seal) = (SELECT summary, seal FROM summaries WHERE n = 2) WHERE n = 1",
        f"The summary of held call {FIRST} does not match the call: restore a good copy.",
    ),
    "no summary": (
        "DELETE FROM summaries WHERE n = 1",
        f"Held call {FIRST} has no summary: restore a good copy.",
    ),
    "a login": (
        "UPDATE logins SET approver = 'eve'",
        "The login of eve does not match its seal: it is not accepted; sign in again.",
    ),
    "a code": (
        "UPDATE codes SET approver = 'eve'",
        "The one-time code of eve does not match its seal: it is not accepted; ask for another.",
    ),
    "a session": (
        "UPDATE sessions SET agent = 'eve'",
        "The session of eve with notes does not match its seal: it is not accepted; restart the agent.",
    ),
    "an event": (
        "UPDATE events SET actor = 'eve' WHERE seq = 2 RETURNING 1",
        f"The audit trail is broken at event 2 (its content was changed): {OR_KEY}",
    ),
    "an event that is not JSON": (
        "UPDATE events SET detail = '{' WHERE seq = 4",
        "The audit trail cannot be read (Input data was truncated): restore a good copy.",
    ),
    "the last event": (
        "DELETE FROM events WHERE seq = 4",
        f"The file lacks audit event 4, which was committed: {RESTORED}",
    ),
}


@pytest.mark.parametrize(("statement", "line"), CHANGES.values(), ids=CHANGES.keys())
async def test_each_change_in_the_file_is_one_line_with_its_remedy(path, statement, line):
    await filled(path)
    sql(path, "DROP TRIGGER events_stay", "DROP TRIGGER events_stay_as_they_are", statement)
    assert line in lines(path)


async def test_a_dropped_index_is_found_beside_a_running_gateway(path):
    async with open_sealed(path) as store:
        await fill(store)
        sql(path, "DROP INDEX presence_by_replica")
        [line] = lines(path)
    assert line.startswith("The file lacks the index presence_by_replica on presence: stop the gateway, ")


async def test_a_summary_of_an_earlier_version_of_its_call_is_found(path):
    async with open_sealed(path) as store:
        await store.add(call := a_call(1), step(call))
        with closing(sqlite3.connect(path)) as db:
            early = db.execute("SELECT summary, seal FROM summaries").fetchone()
        await store.swap(call, later := update(call, note="later"), step(later))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE summaries SET summary = ?, seal = ?", early)
    assert lines(path) == [f"The summary of held call {FIRST} does not match the call: restore a good copy."]


@pytest.mark.parametrize("gone", ["okayed.db", "okayed.db.lock"])
async def test_a_file_that_cannot_be_read_is_reported_in_one_sentence(path, gone):
    await filled(path)
    path.with_name(gone).unlink()
    path.with_name(gone).mkdir()
    with pytest.raises(StoreError, match=f"^The store {path} cannot be checked: "):
        check_file(path, KEY)


async def test_an_empty_file_is_called_truncated(path):
    await filled(path)
    path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"it is empty, so it was truncated; restore a good copy\.$"):
        check_file(path, KEY)


async def test_a_row_that_an_older_version_did_not_seal_is_not_a_finding(path):
    await filled(path)
    sql(path, "UPDATE logins SET seal = x''", "UPDATE sessions SET seal = x''")
    assert lines(path) == []


async def test_every_damaged_page_is_found(path):
    async with open_sealed(path) as store:
        await fill(store)
        for number in range(4, 34):
            await store.add(a_call(number, policy_revision="x" * 500))
    whole = path.read_bytes()
    size = int.from_bytes(whole[16:18], "big")
    for page in range(0, len(whole), size):
        path.write_bytes(whole[:page] + b"\xa5" * size + whole[page + size :])
        try:
            assert lines(path) != [], page // size
        except StoreError as error:
            assert str(error).startswith(f"The store {path} cannot be checked: ")


async def test_an_index_that_lacks_a_row_is_found(path):
    """The check at a start does not compare indexes with their tables."""
    await filled(path)
    sql(
        path,
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_schema SET sql = sql || ' WHERE n > 1' WHERE name = 'calls_by_key'",
    )
    sql(path, "REINDEX calls_by_key")
    sql(
        path,
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_schema SET sql = replace(sql, ' WHERE n > 1', '') WHERE name = 'calls_by_key'",
    )
    assert "The file is damaged (row 1 missing from index calls_by_key): restore a good copy." in lines(path)


async def test_another_key_is_named_as_a_cause_and_the_lines_are_limited(path, monkeypatch):
    monkeypatch.setattr(file_check, "MAX_FINDINGS", 2)
    await filled(path)
    found = lines(path, b"other")
    assert sum("Held call" in line and "does not match its seal" in line for line in found) == 2
    assert "The held calls have further faults, which are not listed: restore a good copy." in found
    assert any("broken at event 1" in line and "store_key" in line for line in found)


@pytest.mark.parametrize("noted", [True, False])
async def test_a_file_without_its_lock_is_checked_without_the_note(path, noted):
    await filled(path)
    sql(path, "DROP TRIGGER events_stay", "DELETE FROM events WHERE seq = 4")
    if not noted:
        path.with_name("okayed.db.lock").unlink()
    assert any("The file lacks audit event 4" in line for line in lines(path)) == noted


async def test_a_file_after_a_crash_is_checked_with_its_wal(path, tmp_path):
    crashed = tmp_path / "crashed"
    async with open_sealed(path) as store:
        await fill(store)
        shutil.copytree(path.parent, crashed, ignore=shutil.ignore_patterns("crashed", "*-shm"))
    report = check_file(crashed / "okayed.db", KEY)
    assert (report.calls, report.findings) == (3, [])


async def test_a_gateway_that_starts_during_the_check_makes_it_void(path, monkeypatch):
    await filled(path)
    monkeypatch.setattr(
        file_check, "_count_rows", lambda _: sql(path, "UPDATE probe SET writes = 7") or (1, 1)
    )
    with pytest.raises(StoreError, match=r"started or stopped while .* was checked; check it again"):
        check_file(path, KEY)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("PRAGMA application_id=1", "it is a SQLite file of another program"),
        (
            "DELETE FROM _sqlite_migrations WHERE name = 'summaries'",
            "an older Okayed wrote it; start the gateway once with this version",
        ),
        ("UPDATE _sqlite_migrations SET name = 'later' WHERE name = 'seals'", "a newer Okayed wrote it"),
    ],
)
async def test_a_file_that_is_not_a_store_of_this_version_is_refused(path, statement, said):
    await filled(path)
    sql(path, statement)
    with pytest.raises(StoreError) as refused:
        check_file(path, KEY)
    assert said in str(refused.value)
