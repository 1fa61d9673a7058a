"""The schema: its migrations, their record, and its comparison with the schema in a file."""

import sqlite3
from contextlib import closing

import pytest
from sqlite_utils import Database, Migrations

from approvals.store.sqlite import schema
from approvals.store.sqlite.schema_check import check_schema, compare_schemas


@pytest.fixture
def connection():
    """Return a connection to a new store."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.create(connection)
        yield connection


@pytest.fixture
def db(connection):
    return Database(connection, execute_plugins=False)


def differences(db):
    return [f"{fault}: {remedy}." for fault, remedy in check_schema(db)]


def build_migrations():
    """Return the migrations as sqlite-utils would keep them; none of them runs."""
    migrations = Migrations("holdpoint")
    for name in schema.MIGRATIONS:
        migrations(name=name)(lambda _: pytest.fail("it was applied already"))
    return migrations


def test_sqlite_utils_reads_the_record_of_applied_migrations(db):
    migrations = build_migrations()
    assert [migration.name for migration in migrations.applied(db)] == list(schema.MIGRATIONS)
    before = list(db.conn.iterdump())
    migrations.apply(db)
    assert list(db.conn.iterdump()) == before


def test_the_table_of_the_record_is_that_of_sqlite_utils(db):
    with closing(sqlite3.connect(":memory:")) as connection:
        empty = Database(connection, execute_plugins=False)
        Migrations("holdpoint").ensure_migrations_table(empty)
        assert list(compare_schemas(db, empty)) == []


def test_a_record_that_sqlite_utils_wrote_is_read():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrations, first = Migrations("holdpoint"), next(iter(schema.MIGRATIONS))

        @migrations(name=first)
        def apply_first(db):
            for statement in schema.MIGRATIONS[first]:
                db.execute(statement)

        db = Database(connection, execute_plugins=False)
        migrations.apply(db)
        schema.migrate(connection)
        assert differences(db) == []
        assert build_migrations().pending(db) == []


@pytest.mark.parametrize("name", schema.MIGRATIONS)
def test_a_file_of_each_older_version_has_the_schema_of_a_new_file_after_its_upgrade(db, name):
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.migrate(connection, stop_before=name)
        schema.migrate(connection)
        upgraded = Database(connection, execute_plugins=False)
        assert list(compare_schemas(upgraded, db)) == []
        assert list(compare_schemas(db, upgraded)) == []


def test_the_quotes_and_the_white_space_of_statements_are_no_difference(db):
    """Earlier versions created these with sqlite-utils, which quotes each name."""
    for name in ("codes", "probe", "secrets"):
        db.table(name).transform()
    for index in ("idx_hits_until", "idx_sessions_at"):
        db.execute(f"DROP INDEX {index}")
    db.table("hits").create_index(["until"])
    db.table("sessions").create_index(["at"])
    db.execute("drop index calls_by_key")
    db.execute('create index "calls_by_key"\n on CALLS(substr("key",1,16))')
    assert 'CREATE TABLE "codes"' in db.schema
    assert differences(db) == []


STOP = "stop the gateway, then execute: "
RESTORE = "restore a good copy."
STAY = (
    "CREATE TRIGGER events_stay BEFORE DELETE ON events "
    "BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END."
)
BY_TIME = 'DROP INDEX "events_by_time"; CREATE INDEX events_by_time ON events (at).'
SECRETS = "CREATE TABLE secrets (name TEXT PRIMARY KEY, bytes BLOB NOT NULL)"
CHANGES = {
    "an index is missing": (
        ["DROP INDEX events_by_time"],
        f"The file lacks the index events_by_time on events: {STOP}CREATE INDEX events_by_time ON events (at).",
    ),
    "an index has another column": (
        ["DROP INDEX events_by_time", "CREATE INDEX events_by_time ON events (seq)"],
        f"The index events_by_time on events is not as expected: {STOP}{BY_TIME}",
    ),
    "an index leaves rows out": (
        ["DROP INDEX events_by_time", "CREATE INDEX events_by_time ON events (at) WHERE kind = 'Call'"],
        f"The index events_by_time on events is not as expected: {STOP}{BY_TIME}",
    ),
    "another index": (
        ['CREATE INDEX "a "" b" ON events (kind)'],
        f'The file has an unexpected index a " b on events: {STOP}DROP INDEX "a "" b".',
    ),
    "a trigger is missing": (
        ["DROP TRIGGER events_stay"],
        f"The file lacks the trigger events_stay on events: {STOP}{STAY}",
    ),
    "a trigger does nothing": (
        [
            "DROP TRIGGER events_stay",
            "CREATE TRIGGER events_stay BEFORE DELETE ON events BEGIN SELECT 1; END",
        ],
        f'The trigger events_stay on events is not as expected: {STOP}DROP TRIGGER "events_stay"; {STAY}',
    ),
    "another trigger": (
        ["CREATE TRIGGER extra AFTER INSERT ON calls BEGIN SELECT 1; END"],
        f'The file has an unexpected trigger extra on calls: {STOP}DROP TRIGGER "extra".',
    ),
    "another column": (
        ["ALTER TABLE calls ADD COLUMN extra TEXT"],
        f'The file has an unexpected column calls.extra: {STOP}ALTER TABLE "calls" DROP COLUMN "extra".',
    ),
    "a column is missing": (
        ["ALTER TABLE hits DROP COLUMN amount"],
        f"The file lacks the column hits.amount: {RESTORE}",
    ),
    "a column has another type": (
        ["DROP TABLE secrets", SECRETS.replace("BLOB", "TEXT")],
        f"The column secrets.bytes is TEXT NOT NULL instead of BLOB NOT NULL: {RESTORE}",
    ),
    "a column has another default": (
        ["ALTER TABLE hits DROP COLUMN amount", "ALTER TABLE hits ADD COLUMN amount REAL NOT NULL DEFAULT 2"],
        f"The column hits.amount is REAL NOT NULL DEFAULT 2 instead of REAL NOT NULL DEFAULT 1: {RESTORE}",
    ),
    "a column may be null": (
        ["DROP TABLE secrets", SECRETS.replace(" NOT NULL", "")],
        f"The column secrets.bytes is BLOB instead of BLOB NOT NULL: {RESTORE}",
    ),
    "a table is missing": (["DROP TABLE codes"], f"The file lacks the table codes: {RESTORE}"),
    "a primary key is missing": (
        ["DROP TABLE secrets", SECRETS.replace(" PRIMARY KEY", "")],
        f"The file lacks the constraint PRIMARY KEY (name) of secrets: {RESTORE}",
    ),
    "another constraint": (
        ["DROP TABLE secrets", SECRETS.replace("NOT NULL", "NOT NULL UNIQUE CHECK (bytes = 'A')")],
        f"The file has an unexpected constraint UNIQUE (bytes) of secrets: {RESTORE}",
    ),
    "another check": (
        ["DROP TABLE secrets", SECRETS.replace("NOT NULL", "NOT NULL CHECK (bytes = 'A')")],
        f"The file has an unexpected constraint CHECK (bytes = 'A') of secrets: {RESTORE}",
    ),
    "a foreign key is missing": (
        ["DROP TABLE notices", "CREATE TABLE notices (call TEXT NOT NULL)"],
        f"The file lacks the constraint FOREIGN KEY (call) REFERENCES calls (id) of notices: {RESTORE}",
    ),
}


@pytest.mark.parametrize(("statements", "line"), CHANGES.values(), ids=CHANGES.keys())
def test_each_difference_of_a_schema_is_one_line_with_its_remedy(db, statements, line):
    for statement in statements:
        db.execute(statement)
    assert line in differences(db)


@pytest.mark.parametrize(("statements", "line"), CHANGES.values(), ids=CHANGES.keys())
def test_the_remedy_of_a_difference_repairs_the_schema(db, statements, line):
    for statement in statements:
        db.execute(statement)
    _, stop, remedy = line.removesuffix(".").partition(STOP)
    if stop:
        db.executescript(remedy)
        assert differences(db) == []


def test_the_table_of_another_program_is_no_difference(db):
    db.execute("CREATE TABLE _backup (id INTEGER PRIMARY KEY)")
    db.execute("CREATE INDEX _backup_by_id ON _backup (id)")
    db.execute("ANALYZE")
    assert differences(db) == []
