"""The check of the whole file: before a start, in the background, or not at all."""

import asyncio
import logging
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest

from approvals.errors import StoreError
from approvals.model import State
from approvals.store.sqlite import background_check, lock_file
from approvals.store.sqlite.file import MAX_CHECKED_AT_START, StoreFile
from approvals.store.sqlite.health import RESTORE
from approvals.store.sqlite.store import SqliteStore
from gateway.app.config import parse_config
from gateway.app.gateway import assemble
from hang import HANG
from store_fixtures import a_call, an_event, open_sqlite

MARK = "a mark that only whole calls have"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "okayed.db"


def as_large(path, **options):
    """Open a file as if it were larger than the limit of the check before the start."""
    return open_sqlite(path, max_checked_at_start=0, **options)


async def used(path):
    """Write a file of several pages, whose calls are settled."""
    async with open_sqlite(path) as store:
        for number in range(40):
            call = a_call(key=f"k{number}", state=State.DENIED, policy_revision=MARK)
            await store.add(call, an_event())


async def crashed(path):
    """Use a file, and leave it as after a kill: with its -wal, without the note of a clean stop."""
    await used(path)
    aside = path.with_name("aside")
    async with open_sqlite(path) as store:
        await store.append(an_event())
        shutil.copytree(path.parent, aside)
    for name in ("okayed.db", "okayed.db-wal", "okayed.db.lock"):
        shutil.copy(aside / name, path.with_name(name))
    path.with_name("okayed.db-shm").unlink(missing_ok=True)


def damage(path):
    """Destroy the first page with whole calls: a leaf of the table, which a start does not read."""
    whole = bytearray(path.read_bytes())
    size = int.from_bytes(whole[16:18], "big")
    leaf = next(
        at
        for at in range(size, len(whole), size)
        if whole[at] == 13 and MARK.encode() in whole[at : at + size]
    )
    whole[leaf : leaf + 8] = b"\xa5" * 8
    path.write_bytes(whole)


async def checked(store):
    """Wait until the check in the background has ended."""
    await asyncio.to_thread(store._page_check._thread.join)


def notes(path):
    file = StoreFile(path)
    found = file.read_notes()
    file.close()
    return found


async def test_a_file_up_to_the_limit_is_checked_before_every_start(path):
    await used(path)
    assert "closed" in notes(path)
    assert path.stat().st_size < MAX_CHECKED_AT_START
    damage(path)
    for limit in (MAX_CHECKED_AT_START, path.stat().st_size):
        with pytest.raises(StoreError, match=r"it is damaged \(.*\); restore a good copy"):
            await SqliteStore.open(path, max_checked_at_start=limit)


async def test_a_larger_file_is_not_checked_after_a_clean_stop(path):
    await used(path)
    damage(path)
    async with open_sqlite(path, max_checked_at_start=path.stat().st_size - 1) as store:
        assert store._page_check is None
        await store.append(an_event())
        with pytest.raises(StoreError) as refused:
            await store.select()
    assert str(refused.value) == (
        f"The store failed (database disk image is malformed) and accepts no more work; {RESTORE}."
    )


async def test_a_larger_file_is_checked_in_the_background_after_a_crash(path, caplog):
    await crashed(path)
    caplog.set_level(logging.INFO)
    async with as_large(path) as store:
        await store.append(an_event())
        await checked(store)
        await store.check()
    assert "the whole file was checked and is not damaged" in caplog.messages
    async with as_large(path) as store:
        assert store._page_check is None


async def test_damage_found_in_the_background_stops_the_store_and_names_the_remedy(path, caplog, monkeypatch):
    await crashed(path)
    damage(path)
    ready, find_damage = threading.Event(), background_check.find_damage
    monkeypatch.setattr(background_check, "find_damage", lambda db: ready.wait(HANG) and find_damage(db))
    config = parse_config(
        f"servers: {{iam: {{url: 'http://127.0.0.1:9/mcp'}}}}\nstore: sqlite:///{path}\n"
        "approvers: [{name: alice}]\npolicy: {default: require_approval}\n",
        {},
        str,
    )

    async def opener(_, *, restored):
        return await SqliteStore.open(path, max_checked_at_start=0, restored=restored)

    async with assemble(config, opener=opener) as gateway:
        await gateway.store.check()
        ready.set()
        await checked(gateway.store)
        problem = await gateway.readiness_problem()
        with pytest.raises(StoreError, match="accepts no more work"):
            await gateway.store.add(a_call())
        with pytest.raises(StoreError, match="accepts no more work"):
            await gateway.store.select()
    assert problem.startswith(f"store: The store failed ({path} is damaged: ")
    assert problem.endswith(f") and accepts no more work; {RESTORE}.")
    (logged,) = (record for record in caplog.records if record.levelname == "CRITICAL")
    assert problem == f"store: {logged.getMessage()}"


async def test_a_damaged_file_is_checked_again_at_the_next_start(path):
    await crashed(path)
    damage(path)
    for _ in range(2):
        store = await SqliteStore.open(path, max_checked_at_start=0)
        await checked(store)
        with pytest.raises(StoreError, match="is damaged"):
            await store.check()
        await store.close()
        assert "closed" not in notes(path)


async def test_a_check_that_still_runs_is_interrupted_by_the_stop_and_made_at_the_next_start(
    path, monkeypatch, caplog
):
    await crashed(path)
    endless = "WITH RECURSIVE c (n) AS (SELECT seq FROM events UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
    with monkeypatch.context() as patched:
        patched.setattr(background_check, "find_damage", lambda db: db.execute(endless).fetchone())
        async with as_large(path) as store:
            await store.append(an_event())
            assert store._page_check._thread.is_alive()
    assert not store._page_check._thread.is_alive()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert "closed" not in notes(path)
    assert not path.with_name("okayed.db-wal").exists()
    async with as_large(path) as store:
        await checked(store)
    assert "closed" in notes(path)


async def test_a_check_that_another_program_prevents_is_made_at_the_next_start(path, monkeypatch, caplog):
    await crashed(path)

    def busy(_):
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    monkeypatch.setattr(background_check, "find_damage", busy)
    async with as_large(path) as store:
        await checked(store)
        await store.check()
    assert "the file could not be checked (database is locked); the next start checks it" in caplog.messages
    assert "closed" not in notes(path)


async def test_a_check_that_cannot_read_the_file_stops_the_store(path, monkeypatch):
    await crashed(path)

    def unreadable(_):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(background_check, "find_damage", unreadable)
    store = await SqliteStore.open(path, max_checked_at_start=0)
    await checked(store)
    with pytest.raises(StoreError, match=f"{path} is damaged: disk I/O error"):
        await store.check()
    await store.close()
    assert "closed" not in notes(path)


async def test_a_start_that_is_killed_at_any_step_is_not_a_clean_stop(path):
    """The note is removed before the file is changed, so a kill at a later step leaves none."""
    await used(path)
    file = StoreFile(path)
    connection = file.connect(max_checked_at_start=0)
    assert "closed" not in file.read_notes()
    assert path.with_name("okayed.db-wal").stat().st_size == 0
    connection.close()
    file.close()
    async with as_large(path) as store:
        assert store._page_check is not None


async def test_a_refused_start_is_not_a_clean_stop(path):
    await used(path)
    with pytest.raises(StoreError, match="under another key"):
        await SqliteStore.open(path, chain_key=b"other", max_checked_at_start=0)
    async with as_large(path) as store:
        assert store._page_check is not None


async def test_a_stop_after_a_failure_is_not_clean(path):
    await used(path)
    store = await SqliteStore.open(path)
    store._health.fail("disk I/O error")
    await store.close()
    assert "closed" not in notes(path)


async def test_a_restored_copy_is_checked_even_with_the_note_of_a_clean_stop(path):
    await used(path)
    async with as_large(path, restored=True) as store:
        assert store._page_check is not None
        await checked(store)


async def test_a_wal_beside_the_file_is_not_from_a_clean_stop(path):
    """Another program may keep the -wal from being written into the file, or a restore may mix two copies."""
    await used(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM calls").fetchone()
        async with open_sqlite(path) as store:
            await store.add(call := a_call())
        assert "closed" in notes(path)
        shutil.copytree(path.parent, path.with_name("copy"))
    async with as_large(path.with_name("copy") / path.name) as store:
        assert store._page_check is not None
        assert await store.get(call.id) == call
        await checked(store)


@pytest.mark.parametrize("line", ["event", "starts"])
async def test_a_note_of_a_clean_stop_from_before_a_use_by_an_older_version_is_not_valid(path, line):
    """An older version leaves the note, but changes one of the others."""
    await used(path)
    with path.with_name("okayed.db.lock").open("r+b") as lock:
        note = lock_file.read(lock.fileno())["closed"]
    async with open_sqlite(path) as store:
        await (store.append(an_event()) if line == "event" else store.count_start())
    with path.with_name("okayed.db.lock").open("r+b") as lock:
        lock_file.write(lock.fileno(), "closed", note)
    async with as_large(path) as store:
        assert store._page_check is not None
        await checked(store)


async def test_a_truncated_file_is_refused_even_with_the_note_of_a_clean_stop(path):
    await used(path)
    whole = path.read_bytes()
    for share in (0.25, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(StoreError) as refused:
            await SqliteStore.open(path, max_checked_at_start=0)
        assert str(refused.value).endswith("restore a good copy.")


async def test_the_newest_events_and_the_open_calls_are_verified_at_every_start(path):
    for statement in (
        "UPDATE events SET actor = 'nobody'",
        "UPDATE calls SET body = CAST(body || ' ' AS BLOB)",
    ):
        path.unlink(missing_ok=True)
        path.with_name("okayed.db.lock").unlink(missing_ok=True)
        async with open_sqlite(path) as store:
            await store.add(a_call(), an_event())
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("DROP TRIGGER events_stay_as_they_are")
            db.execute(statement)
        with pytest.raises(StoreError, match=r"was changed"):
            await SqliteStore.open(path, max_checked_at_start=0)
