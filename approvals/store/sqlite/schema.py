"""The SQLite schema, as a list of migrations. A released migration never changes; a new one is appended.

The functions' names are recorded in each store, so they cannot change either.
"""

import sqlite3
from contextlib import closing

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from approvals.errors import StoreError

#: Marks a SQLite file as a store of Okayed: "Hold" in ASCII.
APPLICATION_ID = 0x486F6C64

#: The name under which stores record their migrations: the product's first name. It cannot change.
migrations = Migrations("holdpoint")

_CALLS = (
    """
    CREATE TABLE calls (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN (
            'pending', 'approved', 'denied', 'expired', 'cancelled', 'voided',
            'forwarding', 'completed', 'upstream_error', 'not_sent', 'in_doubt', 'resolved'
        )),
        key TEXT NOT NULL,
        digest TEXT NOT NULL,
        agent TEXT NOT NULL,
        server TEXT NOT NULL,
        tool TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        settled_at REAL,
        body BLOB NOT NULL,
        seal BLOB NOT NULL
    )
    """,
    """
    CREATE UNIQUE INDEX calls_one_open_of_a_key ON calls (key)
        WHERE state IN ('pending', 'approved', 'forwarding', 'in_doubt')
    """,
    "CREATE INDEX calls_by_key ON calls (key)",
    "CREATE INDEX calls_by_state ON calls (state, id)",
    "CREATE INDEX calls_by_agent ON calls (agent, id)",
    "CREATE INDEX calls_by_deadline ON calls (expires_at) WHERE state IN ('pending', 'approved')",
    """
    CREATE TRIGGER calls_stay_settled BEFORE UPDATE ON calls
        WHEN NEW.state <> OLD.state AND OLD.state IN (
            'denied', 'expired', 'cancelled', 'voided', 'completed', 'upstream_error', 'not_sent', 'resolved'
        )
        BEGIN SELECT RAISE(ABORT, 'a call that came to its end does not change its state'); END
    """,
)

_EVENTS = (
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        actor TEXT NOT NULL,
        call TEXT,
        agent TEXT NOT NULL,
        server TEXT NOT NULL,
        tool TEXT NOT NULL,
        detail TEXT NOT NULL,
        prev TEXT NOT NULL,
        hash TEXT NOT NULL
    )
    """,
    "CREATE INDEX events_by_call ON events (call) WHERE call IS NOT NULL",
    "CREATE INDEX events_by_time ON events (at)",
    """
    CREATE TRIGGER events_stay_as_they_are BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END
    """,
    """
    CREATE TRIGGER events_stay BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END
    """,
)

# `wanted` follows the call's version, so that an index finds the few notices that are behind it.
_NOTICES = (
    """
    CREATE TABLE notices (
        call TEXT NOT NULL REFERENCES calls (id),
        channel TEXT NOT NULL,
        ref TEXT,
        shown_version INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        retry_at REAL NOT NULL,
        wanted INTEGER NOT NULL,
        PRIMARY KEY (call, channel)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX notices_behind ON notices (channel, retry_at) WHERE shown_version < wanted",
    """
    CREATE TRIGGER notices_fall_behind AFTER UPDATE OF version ON calls
        BEGIN UPDATE notices SET wanted = NEW.version WHERE call = NEW.id; END
    """,
)


@migrations()
def calls_events_notices(db: Database) -> None:
    """Held calls, the audit trail, and the notices on channels."""
    for statement in (*_CALLS, *_EVENTS, *_NOTICES):
        db.execute(statement)


@migrations()
def hits_and_logins(db: Database) -> None:
    """Rate-limit hits, logins of people, and a row that the readiness check writes to."""
    db.table("hits").create({"key": str, "at": float, "until": float}, not_null={"key", "at", "until"})
    db.table("hits").create_index(["until"])
    db.table("logins").create(
        {"id_sha256": str, "approver": str, "created_at": float, "expires_at": float},
        pk="id_sha256",
        not_null={"approver", "created_at", "expires_at"},
    )
    db.table("probe").create({"id": int, "writes": int}, pk="id")
    db.table("probe").insert({"id": 1, "writes": 0})


@migrations()
def secrets_of_our_own(db: Database) -> None:
    """Random bytes that survive a restart, such as the key that seals request states."""
    db.table("secrets").create({"name": str, "bytes": bytes}, pk="name", not_null={"bytes"})


@migrations()
def pins_of_tools(db: Database) -> None:
    """The accepted tool definitions."""
    db.table("pins").create(
        {"server": str, "tool": str, "hash": str, "definition": bytes},
        pk=("server", "tool"),
        not_null={"hash", "definition"},
    )


@migrations()
def amounts(db: Database) -> None:
    """The amount that each hit adds to its limit; earlier hits add 1."""
    db.execute("ALTER TABLE hits ADD COLUMN amount REAL NOT NULL DEFAULT 1")


@migrations()
def sessions_of_agents(db: Database) -> None:
    """MCP sessions, their agents and their initialize params, so that sessions survive a restart."""
    db.table("sessions").create(
        {"server": str, "id": str, "agent": str, "opening": bytes, "at": float},
        pk=("server", "id"),
        not_null={"agent", "opening", "at"},
    )
    db.table("sessions").create_index(["at"])


@migrations()
def seals(db: Database) -> None:
    """Seals on logins and sessions, as on held calls; those without a seal must be opened again."""
    for table in ("logins", "sessions"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN seal BLOB NOT NULL DEFAULT x''")


@migrations()
def identities_of_pins(db: Database) -> None:
    """The server identity of each pin; earlier pins are bound when the gateway starts."""
    db.execute("ALTER TABLE pins ADD COLUMN identity TEXT NOT NULL DEFAULT ''")


@migrations()
def progress(db: Database) -> None:
    """The highest time so far, so that a clock that is set back does not revive an expired call."""
    db.table("progress").create({"id": int, "time": float}, pk="id", not_null={"time"})
    db.table("progress").insert({"id": 1, "time": 0.0})


@migrations()
def starts(db: Database) -> None:
    """The number of starts with this file, which reveals an older copy of it."""
    db.execute("ALTER TABLE progress ADD COLUMN starts INTEGER NOT NULL DEFAULT 0")


@migrations()
def summaries(db: Database) -> None:
    """Summaries for lists, sweeps and limits; `SqliteStore.open` writes the summaries of older calls."""
    db.table("summaries").create(
        {
            "n": int,
            "state": str,
            "agent": str,
            "created_at": float,
            "size": int,
            "summary": bytes,
            "seal": bytes,
        },
        pk="n",
        not_null={"state", "agent", "created_at", "size", "summary", "seal"},
        foreign_keys=[("n", "calls", "n")],
    )
    # Covering indexes: a limit is counted without reading a row.
    db.table("summaries").create_index(["state", "agent", "size"])
    db.table("summaries").create_index(["agent", "created_at", "size"])


@migrations()
def lists_in_order_of_arrival(db: Database) -> None:
    """Order lists by row number, since the ids of earlier versions (`hp_...`) sort after newer ids."""
    for column in ("state", "agent"):
        db.execute(f"DROP INDEX calls_by_{column}")
        db.execute(f"CREATE INDEX calls_by_{column} ON calls ({column})")


@migrations()
def replicas_of_a_store(db: Database) -> None:
    """Leases of replicas, the names that they hold, and the calls for which their clients wait."""
    for statement in (
        "CREATE TABLE replicas (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE names (name TEXT PRIMARY KEY, holder TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE presence (call TEXT, replica TEXT, PRIMARY KEY (call, replica)) WITHOUT ROWID",
        "CREATE INDEX presence_by_replica ON presence (replica)",
    ):
        db.execute(statement)


_SUMMARIES = (
    # Lists check the narrow columns of many rows, so these come before the blobs.
    """
    CREATE TABLE new_summaries (
        n INTEGER PRIMARY KEY REFERENCES calls (n),
        id TEXT NOT NULL,
        state TEXT NOT NULL,
        agent TEXT NOT NULL,
        server TEXT NOT NULL,
        tool TEXT NOT NULL,
        task INTEGER NOT NULL,
        created_at REAL NOT NULL,
        size INTEGER NOT NULL,
        summary BLOB NOT NULL,
        seal BLOB NOT NULL
    )
    """,
    """
    INSERT INTO new_summaries
    SELECT n, id, old.state, old.agent, server, tool, instr(summary, CAST('"task":true' AS BLOB)) > 0,
        old.created_at, size, summary, old.seal
    FROM summaries AS old JOIN calls USING (n) ORDER BY n
    """,
    "DROP TABLE summaries",
    "ALTER TABLE new_summaries RENAME TO summaries",
    # An index ends with the row number, so each of these four is in the order of arrival.
    "CREATE INDEX summaries_by_state ON summaries (state)",
    "CREATE INDEX summaries_by_agent ON summaries (agent)",
    "CREATE INDEX summaries_by_server ON summaries (server)",
    "CREATE INDEX summaries_by_tool ON summaries (tool)",
    # Limits and the sweep are answered from these three alone.
    "CREATE INDEX summaries_by_age ON summaries (agent, created_at, size)",
    """
    CREATE INDEX summaries_open ON summaries (agent, size, state)
        WHERE state IN ('pending', 'approved', 'forwarding')
    """,
    """
    CREATE INDEX summaries_of_tasks ON summaries (n, id, task, state)
        WHERE task = 1 AND state IN ('pending', 'approved', 'forwarding')
    """,
)


@migrations()
def summaries_for_lists(db: Database) -> None:
    """Summaries with every column that lists, sweeps and limits look at, so that they read nothing of `calls`."""
    for statement in _SUMMARIES:
        db.execute(statement)


@migrations()
def login_activity_and_codes(db: Database) -> None:
    """The last activity of each login, and one-time codes."""
    db.execute("ALTER TABLE logins ADD COLUMN seen_at REAL NOT NULL DEFAULT 0")
    # Older versions kept the activity in memory, so their logins get the latest time that it can be.
    db.execute("UPDATE logins SET seen_at = max(created_at, (SELECT time FROM progress))")
    db.table("codes").create(
        {"id_sha256": str, "approver": str, "created_at": float, "expires_at": float, "seal": bytes},
        pk="id_sha256",
        not_null={"approver", "created_at", "expires_at", "seal"},
    )
    for table in ("logins", "codes"):
        db.table(table).create_index(["expires_at"])


@migrations()
def presence_on_notices(db: Database) -> None:
    """Whether each notice shows a waiting client; unknown for earlier notices."""
    db.execute("ALTER TABLE notices ADD COLUMN shown_attended INTEGER")


@migrations()
def notices_to_update(db: Database) -> None:
    """Find the posted notices that are behind, without those that were never posted; drop two unused indexes."""
    for statement in (
        "DROP INDEX notices_behind",
        """
        CREATE INDEX notices_to_update ON notices (channel, retry_at)
            WHERE shown_version < wanted AND ref IS NOT NULL
        """,
        "DROP INDEX calls_by_state",
        "DROP INDEX calls_by_agent",
    ):
        db.execute(statement)


def create(connection: sqlite3.Connection) -> None:
    """Create the schema in an empty file."""
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    migrate(connection)


def check_origin(connection: sqlite3.Connection) -> None:
    """Raise `StoreError` when another program, or a newer Okayed, wrote the file."""
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    if mark != APPLICATION_ID:
        raise StoreError("it is a SQLite file of another program")
    with closing(sqlite3.connect(":memory:")) as empty:
        known = {migration.name for migration in migrations.pending(_database(empty))}
    if any(migration.name not in known for migration in migrations.applied(_database(connection))):
        raise StoreError("a newer Okayed wrote it; start that version, or give this gateway its own store")


@migrations()
def locks_of_replicas(db: Database) -> None:
    """The names that replicas hold are called locks."""
    db.execute("ALTER TABLE names RENAME TO locks")


def check_current(connection: sqlite3.Connection) -> None:
    """Raise `StoreError` unless this version's schema is in the file."""
    check_origin(connection)
    if migrations.pending(_database(connection)):
        raise StoreError("an older Okayed wrote it; start the gateway once with this version")


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing migrations in one transaction, so that an older version can open the file after a failure."""
    database = _database(connection)
    with database.atomic():
        migrations.apply(database)


def _database(connection: sqlite3.Connection) -> Database:
    return Database(connection, execute_plugins=False)
