"""The SQLite schema, as migrations in order. One that was released is never changed; the next one is added."""

import sqlite3

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from approvals.lifecycle import SETTLED
from approvals.model import State

migrations = Migrations("holdpoint")

_STATES = ", ".join(f"'{state}'" for state in State)
_OPEN = ", ".join(f"'{state}'" for state in State if state not in SETTLED or state is State.IN_DOUBT)
_FINAL = ", ".join(f"'{state}'" for state in SETTLED if state is not State.IN_DOUBT)


@migrations()
def m001_calls(db: Database) -> None:
    """Held calls: what is searched for as columns, the whole value as JSON."""
    db.executescript(f"""
        CREATE TABLE calls (
            id TEXT PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL CHECK (state IN ({_STATES})),
            key TEXT NOT NULL, agent TEXT NOT NULL, server TEXT NOT NULL, tool TEXT NOT NULL,
            expires_at REAL NOT NULL, value BLOB NOT NULL
        ) WITHOUT ROWID;
        CREATE UNIQUE INDEX one_open_call_of_a_key ON calls (key) WHERE state IN ({_OPEN});
        CREATE INDEX calls_by_key ON calls (key, id);
        CREATE INDEX calls_by_state ON calls (state, id);
        CREATE TRIGGER what_is_final_stays BEFORE UPDATE OF state ON calls
            WHEN OLD.state IN ({_FINAL}) AND NEW.state <> OLD.state
            BEGIN SELECT RAISE(ABORT, 'this call is at its end'); END;
        CREATE TRIGGER versions_go_up BEFORE UPDATE ON calls WHEN NEW.version <> OLD.version + 1
            BEGIN SELECT RAISE(ABORT, 'versions go up by one'); END;
    """)


@migrations()
def m002_events(db: Database) -> None:
    """The audit trail. Rows are added, never changed."""
    db.executescript("""
        CREATE TABLE events (
            seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, call TEXT, agent TEXT NOT NULL,
            tool TEXT NOT NULL, value BLOB NOT NULL
        );
        CREATE INDEX events_by_call ON events (call, seq) WHERE call IS NOT NULL;
        CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'the trail is not changed'); END;
        CREATE TRIGGER events_are_kept BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'the trail is kept'); END;
    """)


@migrations()
def m003_notices(db: Database) -> None:
    """What each channel shows of each call."""
    db["notices"].create(
        {"call": str, "channel": str, "ref": str, "shown_version": int, "failures": int, "retry_at": float},
        pk=("call", "channel"), not_null={"call", "channel", "shown_version", "failures", "retry_at"},
    )  # fmt: skip
    db["notices"].create_index(["channel", "ref"])


@migrations()
def m004_hits_and_logins(db: Database) -> None:
    """Uses of rate limits, and who is logged in to the inbox."""
    db["hits"].create({"key": str, "at": float, "until": float}, not_null={"key", "at", "until"})
    db["hits"].create_index(["until"])
    db["logins"].create(
        {"id_sha256": str, "approver": str, "created_at": float, "expires_at": float},
        pk="id_sha256", not_null={"approver", "created_at", "expires_at"},
    )  # fmt: skip


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest schema."""
    migrations.apply(Database(connection))


def unknown(connection: sqlite3.Connection) -> list[str]:
    """Return the migrations that this version does not know: the file was written by a newer one."""
    known = {migration.name for migration in migrations.pending(Database(memory=True))}
    return [applied.name for applied in migrations.applied(Database(connection)) if applied.name not in known]
