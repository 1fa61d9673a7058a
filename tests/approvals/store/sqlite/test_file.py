import re
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from approvals.errors import StoreError
from approvals.model import LoginSession, Notice
from approvals.store.sqlite import lock_file, schema
from approvals.store.sqlite.file import StoreFile
from approvals.store.sqlite.store import SqliteStore
from replacing import replace
from store_fixtures import a_call, an_event, open_sqlite


@pytest.fixture
def path(tmp_path):
    return tmp_path / "okayed.db"


async def used(path, events=3):
    """Create a store, use it, close it."""
    async with open_sqlite(path) as store:
        for number in range(events):
            call = a_call()
            await store.add(
                call, an_event("hold.pending", call=call.id, detail={"number": number, "pad": "x" * 500})
            )


async def refusal(path, **options):
    with pytest.raises(StoreError) as refused:
        await SqliteStore.open(path, **options)
    return str(refused.value)


def open_files():
    return {one.name for one in Path("/dev/fd").iterdir()}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def sql(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


async def test_a_new_file_is_created_for_its_owner_alone(path):
    async with open_sqlite(path) as store:
        await store.append(an_event())
        await store.check()
        names = sorted(one.name for one in path.parent.iterdir())
        assert names == ["okayed.db", "okayed.db-shm", "okayed.db-wal", "okayed.db.lock"]
        assert {mode(one) for one in path.parent.iterdir()} == {0o600}
    assert sorted(one.name for one in path.parent.iterdir()) == ["okayed.db", "okayed.db.lock"]


async def test_a_file_that_others_could_read_is_made_private(path):
    await used(path)
    path.chmod(0o644)
    async with open_sqlite(path):
        assert mode(path) == 0o600


async def test_a_path_may_be_text_with_characters_that_a_url_would_escape(tmp_path):
    odd = tmp_path / "a ?b#%41 'c.db"
    async with open_sqlite(str(odd)) as store:
        await store.append(an_event())
    async with open_sqlite(odd) as store:
        assert len(await store.events()) == 1


async def test_the_file_is_synced_at_every_commit_and_read_by_one_connection(path):
    async with open_sqlite(path) as store:

        def settings(db):
            names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "trusted_schema")
            return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        assert await store.writer.do(settings) == ["wal", 2, 1, 5000, 0]


async def test_a_table_that_a_migration_drops_is_not_written_once_more(path):
    """Else the migration of a long history would need its size again, on the disk and in memory."""
    async with open_sqlite(path) as store:
        await store.writer.do(
            lambda db: db.execute("CREATE TABLE old AS SELECT zeroblob(4000000) AS x") and None
        )
    async with open_sqlite(path) as store:
        await store.writer.do(lambda db: db.execute("DROP TABLE old") and None)
        assert path.with_name("okayed.db-wal").stat().st_size < 400_000


async def test_a_second_gateway_is_refused_until_the_first_one_ends(path):
    async with open_sqlite(path) as store:
        said = f"Another gateway uses {path}. Stop it, or give this gateway its own store."
        files = open_files()
        assert await refusal(path) == said
        assert open_files() == files
        await store.append(an_event())
    async with open_sqlite(path) as store:
        assert len(await store.events()) == 1


async def test_a_refused_start_leaves_no_lock_behind(path):
    path.write_bytes(b"")
    await refusal(path)
    path.unlink()
    async with open_sqlite(path):
        pass


async def test_a_missing_folder_is_named(tmp_path):
    said = f"The store's folder {tmp_path / 'no'} does not exist; create it first."
    assert await refusal(tmp_path / "no" / "okayed.db") == said
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    said = f"The store's folder {tmp_path / 'file'} cannot be written to (Not a directory)."
    assert await refusal(tmp_path / "file" / "okayed.db") == said


def cause(path, said):
    return f"The store {path} cannot be used: {said}"


async def test_a_path_that_is_a_folder_is_refused(path):
    path.mkdir(0o755)
    assert await refusal(path) == cause(path, "it is not a file.")
    assert mode(path) == 0o755


async def test_an_empty_file_is_refused_and_not_changed(path):
    path.write_bytes(b"")
    said = "it is empty, so it was truncated; restore a good copy, or delete it to start with a new store."
    assert await refusal(path) == cause(path, said)
    assert path.read_bytes() == b""


async def test_a_file_that_is_not_a_database_is_refused_and_not_changed(path):
    path.write_text("listen: 127.0.0.1:8080\n" * 100)
    path.chmod(0o644)
    assert await refusal(path) == cause(path, "file is not a database.")
    assert path.read_text() == "listen: 127.0.0.1:8080\n" * 100
    assert mode(path) == 0o644


async def test_a_database_of_another_program_is_refused_and_not_changed(path):
    sql(path, "CREATE TABLE calls (id)")
    before = path.read_bytes()
    assert await refusal(path) == cause(path, "it is a SQLite file of another program.")
    assert path.read_bytes() == before


async def test_a_file_of_a_newer_version_is_refused_and_not_changed(path):
    await used(path)
    later = (
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('holdpoint', 'later', '')"
    )
    sql(path, later)
    before = path.read_bytes()
    said = "a newer Okayed wrote it; start that version, or give this gateway its own store."
    assert await refusal(path) == cause(path, said)
    assert path.read_bytes() == before


async def test_a_truncated_file_is_refused(path):
    await used(path, events=50)
    whole = path.read_bytes()
    for share in (0.25, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert re.fullmatch(
            r"The store .* cannot be used: .*(malformed|damaged|not a database).*", await refusal(path)
        )


async def test_a_file_with_any_bad_page_is_refused(path):
    await used(path, events=30)
    whole = path.read_bytes()
    size = int.from_bytes(whole[16:18], "big")
    async with open_sqlite(path) as store:

        def free(db):
            return db.execute("PRAGMA freelist_count").fetchone()[0]

        assert await store.reader.read(free) == 0
    for page in range(0, len(whole), size):
        path.write_bytes(whole[:page] + b"\xa5" * size + whole[page + size :])
        assert (await refusal(path)).startswith(f"The store {path} cannot be used: "), page // size


async def test_a_removed_file_is_not_created_again(path):
    await used(path)
    path.unlink()
    said = f"it was removed; restore it, or delete {path}.lock to start with a new store."
    assert await refusal(path) == cause(path, said)
    assert not path.exists()
    path.with_name("okayed.db.lock").unlink()
    async with open_sqlite(path) as store:
        assert await store.events() == []


def lacking(path, seq):
    return cause(
        path,
        f"it lacks audit event {seq:020d}, which was committed: its -wal file is missing, or it is an older copy;"
        f" restore the right files, or continue with this one: okayed run --restored.",
    )


async def test_a_restored_older_copy_is_detected(path):
    await used(path, events=2)
    old = path.read_bytes()
    await used(path, events=1)
    path.write_bytes(old)
    assert await refusal(path) == lacking(path, 3)
    path.with_name("okayed.db.lock").unlink()
    async with open_sqlite(path) as store:
        assert len(await store.events()) == 2


async def test_a_rewritten_trail_of_the_same_length_is_detected(path):
    await used(path, events=2)
    other = path.with_name("other.db")
    await used(other, events=2)
    path.write_bytes(other.read_bytes())
    assert await refusal(path) == lacking(path, 2)


async def test_a_lost_wal_is_detected(path, tmp_path):
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    async with open_sqlite(path) as store:
        await store.append(an_event())
        for name in ("okayed.db", "okayed.db-wal", "okayed.db.lock"):
            shutil.copy(path.with_name(name), crashed / name)
    (crashed / "okayed.db-wal").rename(crashed / "aside")
    assert await refusal(crashed / "okayed.db") == lacking(crashed / "okayed.db", 1)
    (crashed / "aside").rename(crashed / "okayed.db-wal")
    async with open_sqlite(crashed / "okayed.db") as store:
        assert len(await store.events()) == 1


async def test_a_refused_start_does_not_write_the_wal_of_another_copy_into_the_file(path, tmp_path):
    await used(path)
    whole = path.read_bytes()
    other = tmp_path / "other.db"
    async with open_sqlite(other) as store:
        await store.append(an_event())
        shutil.copy(other.with_name("other.db-wal"), path.with_name("okayed.db-wal"))
    assert "restore" in await refusal(path)
    assert path.read_bytes() == whole
    path.with_name("okayed.db-wal").unlink()
    async with open_sqlite(path) as store:
        assert len((await store.select()).items) == 3


async def test_a_start_killed_while_it_created_the_file_can_be_repeated(path):
    path.with_name("okayed.db.new").write_bytes(b"half a file")
    async with open_sqlite(path) as store:
        await store.append(an_event())
    assert not path.with_name("okayed.db.new").exists()


async def test_a_migration_that_was_killed_is_completed_at_the_next_start(path):
    await used(path)
    sql(
        path,
        "DROP TABLE hits",
        "DROP TABLE logins",
        "DROP TABLE probe",
        "DELETE FROM _sqlite_migrations WHERE name IN ('hits_and_logins', 'amounts')",
    )
    async with open_sqlite(path) as store:
        store.add_hit("a", 1.0, 5.0)
        assert await store.hits(2.0) == [("a", 1.0, 1)]
        assert len((await store.select()).items) == 3


async def test_a_migration_that_fails_leaves_the_file_to_the_older_version(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
        schema.migrate(db, stop_before="replicas_of_a_store")
        db.execute("CREATE TABLE codes (n)")  # the third migration to come creates it
        before = list(db.iterdump())
    assert await refusal(path) == f"The store {path} cannot be used: table codes already exists."
    with closing(sqlite3.connect(path)) as db:
        assert list(db.iterdump()) == before
        db.execute("DROP TABLE codes")
    async with open_sqlite(path) as store:
        assert (await store.select()).items == []


async def test_hits_of_an_older_version_have_amount_one(path):
    await used(path)
    sql(
        path,
        "ALTER TABLE hits DROP COLUMN amount",
        "DELETE FROM _sqlite_migrations WHERE name = 'amounts'",
        "INSERT INTO hits (key, at, until) VALUES ('old', 1.0, 9.0)",
    )
    async with open_sqlite(path) as store:
        assert await store.hits(2.0) == [("old", 1.0, 1)]


async def test_a_notice_of_an_older_version_is_read_without_the_presence_that_it_shows(path):
    call = a_call()
    notice = Notice(call=call.id, channel="slack", ref="m1", shown_version=1, shown_attended=False)
    async with open_sqlite(path) as store:
        await store.add(call)
        await store.save_notice(notice)
    sql(
        path,
        "ALTER TABLE notices DROP COLUMN shown_attended",
        "DELETE FROM _sqlite_migrations WHERE name = 'presence_on_notices'",
    )
    async with open_sqlite(path) as store:
        older = replace(notice, shown_attended=None)
        assert await store.notices_with_stale_presence("slack", 1.0) == [older]


async def test_a_login_of_an_older_version_stays_valid_and_was_active_until_the_upgrade(path):
    login = LoginSession(id_sha256="s", approver="alice", created_at=10.0, expires_at=100.0, seen_at=10.0)
    async with open_sqlite(path, chain_key=b"key") as store:
        await store.save_login(login)
        await store.save_login(replace(login, id_sha256="newer", created_at=60.0, seen_at=60.0))
        store.keep_time(50.0)
    sql(
        path,
        "DROP TABLE codes",
        "ALTER TABLE logins DROP COLUMN seen_at",
        "DROP INDEX idx_logins_expires_at",
        "DELETE FROM _sqlite_migrations WHERE name = 'login_activity_and_codes'",
    )
    async with open_sqlite(path, chain_key=b"key") as store:
        assert await store.find_login("s") == replace(login, seen_at=50.0)
        assert (await store.find_login("newer")).seen_at == 60.0


@pytest.mark.parametrize("name", ["okayed.db", "okayed.db.lock"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_acknowledged_after_the_file_or_its_lock_was_replaced(path, name, replaced):
    gone = path.with_name(name)
    async with open_sqlite(path) as store:
        await store.append(an_event())
        gone.rename(path.with_name("aside"))
        if replaced:
            shutil.copy(path.with_name("aside"), gone)
        with pytest.raises(StoreError, match=r"was removed or replaced while the gateway ran"):
            await store.append(an_event())
        with pytest.raises(StoreError, match=r"accepts no more work"):
            await store.check()


async def test_a_note_that_cannot_be_written_does_not_undo_a_commit(path):
    await used(path)
    file = StoreFile(path)
    connection = file.connect()
    connection.close()
    file.note_commit(connection)
    file.close()
    file.close()


# The notes in .lock


async def test_a_note_of_an_older_version_is_read(path):
    await used(path, events=2)
    lock = path.with_name("okayed.db.lock")
    seq, digest = lock.read_text()[:128].split()[1:]
    lock.write_text(f"{seq} {digest}\n")
    path.rename(path.with_name("aside"))
    await used(path.with_name("other.db"), events=2)
    path.write_bytes(path.with_name("other.db").read_bytes())
    assert await refusal(path) == lacking(path, 2)
    path.with_name("aside").rename(path)
    async with open_sqlite(path) as store:
        await store.append(an_event())
    assert lock.read_text().startswith("event 00000000000000000003 ")


async def test_a_process_without_the_lock_writes_its_note_and_keeps_the_others(path):
    file = StoreFile(path)
    connection = file.connect()
    with path.with_name("okayed.db.lock").open("r+b") as beside:
        lock_file.write(beside.fileno(), "wanted", "4711")
        file.write_notes(starts="7")
        assert lock_file.read(beside.fileno()) == file.read_notes() == {"starts": "7", "wanted": "4711"}
        lock_file.write(beside.fileno(), "wanted", "")
        assert file.read_notes() == {"starts": "7"}
    connection.close()
    file.close()
