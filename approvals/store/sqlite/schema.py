"""The SQLite schema, as a list of migrations. A released migration never changes; a new one is appended.

Each store records the names of its migrations, so these cannot change either.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from approvals.errors import StoreError

#: Marks a SQLite file as a store of Okayed: "Hold" in ASCII.
APPLICATION_ID = 0x486F6C64
#: Of a new file. A held call takes several kilobytes: pages of 4 KB cost a fifth more processor time for each.
PAGE_SIZE = 8192

#: The name under which stores record their migrations: the product's first name. It cannot change.
MIGRATION_SET = "holdpoint"
#: The record of the applied migrations, in the format of sqlite-utils.
_RECORD = (
    """
    CREATE TABLE IF NOT EXISTS _sqlite_migrations (
        id INTEGER PRIMARY KEY,
        migration_set TEXT,
        name TEXT,
        applied_at TEXT
    )
    """,
    """
    CREATE UNIQUE INDEX IF NOT EXISTS idx__sqlite_migrations_migration_set_name
        ON _sqlite_migrations (migration_set, name)
    """,
)
_HAS_RECORD = "SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'"
_APPLIED = "SELECT name FROM _sqlite_migrations WHERE migration_set = ?"
_APPEND = "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)"

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

_HITS_AND_LOGINS = (
    "CREATE TABLE hits (key TEXT NOT NULL, at REAL NOT NULL, until REAL NOT NULL)",
    "CREATE INDEX idx_hits_until ON hits (until)",
    """
    CREATE TABLE logins (
        id_sha256 TEXT PRIMARY KEY,
        approver TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL
    )
    """,
    "CREATE TABLE probe (id INTEGER PRIMARY KEY, writes INTEGER)",
    "INSERT INTO probe (id, writes) VALUES (1, 0)",
)

_PINS = (
    """
    CREATE TABLE pins (
        server TEXT,
        tool TEXT,
        hash TEXT NOT NULL,
        definition BLOB NOT NULL,
        PRIMARY KEY (server, tool)
    )
    """,
)

_SESSIONS = (
    """
    CREATE TABLE sessions (
        server TEXT,
        id TEXT,
        agent TEXT NOT NULL,
        opening BLOB NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (server, id)
    )
    """,
    "CREATE INDEX idx_sessions_at ON sessions (at)",
)

_FIRST_SUMMARIES = (
    """
    CREATE TABLE summaries (
        n INTEGER PRIMARY KEY REFERENCES calls (n),
        state TEXT NOT NULL,
        agent TEXT NOT NULL,
        created_at REAL NOT NULL,
        size INTEGER NOT NULL,
        summary BLOB NOT NULL,
        seal BLOB NOT NULL
    )
    """,
    # Covering indexes: a limit is counted without reading a row.
    "CREATE INDEX idx_summaries_state_agent_size ON summaries (state, agent, size)",
    "CREATE INDEX idx_summaries_agent_created_at_size ON summaries (agent, created_at, size)",
)

_REPLICAS = (
    "CREATE TABLE replicas (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE names (name TEXT PRIMARY KEY, holder TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE presence (call TEXT, replica TEXT, PRIMARY KEY (call, replica)) WITHOUT ROWID",
    "CREATE INDEX presence_by_replica ON presence (replica)",
)

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

_CODES = (
    "ALTER TABLE logins ADD COLUMN seen_at REAL NOT NULL DEFAULT 0",
    # Older versions kept the activity in memory, so their logins get the latest time that it can be.
    "UPDATE logins SET seen_at = max(created_at, (SELECT time FROM progress))",
    """
    CREATE TABLE codes (
        id_sha256 TEXT PRIMARY KEY,
        approver TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        seal BLOB NOT NULL
    )
    """,
    "CREATE INDEX idx_logins_expires_at ON logins (expires_at)",
    "CREATE INDEX idx_codes_expires_at ON codes (expires_at)",
)

_NOTICES_TO_UPDATE = (
    "DROP INDEX notices_behind",
    """
    CREATE INDEX notices_to_update ON notices (channel, retry_at)
        WHERE shown_version < wanted AND ref IS NOT NULL
    """,
    "DROP INDEX calls_by_state",
    "DROP INDEX calls_by_agent",
)

# Keys are random, so each new call changes a page somewhere in each index of keys. One short index is left: its pages hold
# more keys, so fewer of them change. `+key`: otherwise SQLite puts the value into `substr` and cannot use the index.
_KEYS = (
    "DROP INDEX calls_one_open_of_a_key",
    "DROP INDEX calls_by_key",
    "CREATE INDEX calls_by_key ON calls (substr(key, 1, 16))",
    "CREATE INDEX calls_open ON calls (state) WHERE state IN ('pending', 'approved', 'forwarding', 'in_doubt')",
    """
    CREATE TRIGGER calls_one_open_of_a_key BEFORE INSERT ON calls
        WHEN NEW.state IN ('pending', 'approved', 'forwarding', 'in_doubt') AND EXISTS (
            SELECT 1 FROM calls INDEXED BY calls_by_key
            WHERE substr(key, 1, 16) = substr(NEW.key, 1, 16) AND +key = NEW.key
            AND state IN ('pending', 'approved', 'forwarding', 'in_doubt')
        )
        BEGIN SELECT RAISE(ABORT, 'an open call has this key'); END
    """,
)

#: The statements of each migration, by its name, in order.
MIGRATIONS: Mapping[str, Sequence[str]] = {
    # Held calls, the audit trail, and the notices on channels.
    "calls_events_notices": (*_CALLS, *_EVENTS, *_NOTICES),
    # Rate-limit hits, logins of people, and a row that the readiness check writes to.
    "hits_and_logins": _HITS_AND_LOGINS,
    # Random bytes that survive a restart, such as the key that seals request states.
    "secrets_of_our_own": ("CREATE TABLE secrets (name TEXT PRIMARY KEY, bytes BLOB NOT NULL)",),
    # The accepted tool definitions.
    "pins_of_tools": _PINS,
    # The amount that each hit adds to its limit; earlier hits add 1.
    "amounts": ("ALTER TABLE hits ADD COLUMN amount REAL NOT NULL DEFAULT 1",),
    # MCP sessions, their agents and their initialize params, so that sessions survive a restart.
    "sessions_of_agents": _SESSIONS,
    # Seals on logins and sessions, as on held calls; those without a seal must be opened again.
    "seals": tuple(
        f"ALTER TABLE {table} ADD COLUMN seal BLOB NOT NULL DEFAULT x''" for table in ("logins", "sessions")
    ),
    # The server identity of each pin; earlier pins are bound when the gateway starts.
    "identities_of_pins": ("ALTER TABLE pins ADD COLUMN identity TEXT NOT NULL DEFAULT ''",),
    # The highest time so far, so that a clock that is set back does not revive an expired call.
    "progress": (
        "CREATE TABLE progress (id INTEGER PRIMARY KEY, time REAL NOT NULL)",
        "INSERT INTO progress (id, time) VALUES (1, 0.0)",
    ),
    # The number of starts with this file, which reveals an older copy of it.
    "starts": ("ALTER TABLE progress ADD COLUMN starts INTEGER NOT NULL DEFAULT 0",),
    # Summaries for lists, sweeps and limits; `SqliteStore.open` writes the summaries of older calls.
    "summaries": _FIRST_SUMMARIES,
    # Order lists by row number, since the ids of earlier versions (`hp_...`) sort after newer ids.
    "lists_in_order_of_arrival": (
        "DROP INDEX calls_by_state",
        "CREATE INDEX calls_by_state ON calls (state)",
        "DROP INDEX calls_by_agent",
        "CREATE INDEX calls_by_agent ON calls (agent)",
    ),
    # Leases of replicas, the names that they hold, and the calls for which their clients wait.
    "replicas_of_a_store": _REPLICAS,
    # Summaries with every column that lists, sweeps and limits look at, so that they read nothing of `calls`.
    "summaries_for_lists": _SUMMARIES,
    # The last activity of each login, and one-time codes.
    "login_activity_and_codes": _CODES,
    # Whether each notice shows a waiting client; unknown for earlier notices.
    "presence_on_notices": ("ALTER TABLE notices ADD COLUMN shown_attended INTEGER",),
    # Find the posted notices that are behind, without those that were never posted; drop two unused indexes.
    "notices_to_update": _NOTICES_TO_UPDATE,
    # The names that replicas hold are called locks.
    "locks_of_replicas": ("ALTER TABLE names RENAME TO locks",),
    # Deadlines, limits and tasks are answered from memory.
    "open_calls_in_memory": (
        "DROP INDEX IF EXISTS calls_by_deadline",
        "DROP INDEX IF EXISTS summaries_open",
        "DROP INDEX IF EXISTS summaries_of_tasks",
    ),
    # A shorter index of keys, and one open call of a key by a trigger.
    "shorter_index_of_keys": _KEYS,
}


def create(connection: sqlite3.Connection) -> None:
    """Create the schema in an empty file."""
    connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    migrate(connection)


def check_origin(connection: sqlite3.Connection) -> None:
    """Raise `StoreError` when another program, or a newer Okayed, wrote the file."""
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    if mark != APPLICATION_ID:
        raise StoreError("it is a SQLite file of another program")
    if _applied(connection) - MIGRATIONS.keys():
        raise StoreError("a newer Okayed wrote it; start that version, or give this gateway its own store")


def check_current(connection: sqlite3.Connection) -> None:
    """Raise `StoreError` unless this version's schema is in the file."""
    check_origin(connection)
    if MIGRATIONS.keys() - _applied(connection):
        raise StoreError("an older Okayed wrote it; start the gateway once with this version")


def migrate(connection: sqlite3.Connection, *, stop_before: str = "") -> None:
    """Apply the missing migrations in one transaction, so that an older version can open the file after a failure.

    *stop_before*: the name of the first migration to leave out.
    """
    names = list(MIGRATIONS)[: list(MIGRATIONS).index(stop_before) if stop_before else None]
    if _applied(connection).issuperset(names):
        return
    connection.execute("BEGIN")
    with connection:
        _execute(connection, _RECORD)
        applied = _applied(connection)
        for name in names:
            if name not in applied:
                _execute(connection, MIGRATIONS[name])
                connection.execute(_APPEND, (MIGRATION_SET, name, str(datetime.now(UTC))))


def _applied(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the migrations that the file records."""
    if connection.execute(_HAS_RECORD).fetchone() is None:
        return set()
    return {name for (name,) in connection.execute(_APPLIED, (MIGRATION_SET,))}


def _execute(connection: sqlite3.Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        connection.execute(statement)
