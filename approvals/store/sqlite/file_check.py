"""Checks everything in a store's file without changing it: its pages, schema, seals and audit trail."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, starmap
from pathlib import Path
from typing import Any

import msgspec
from sqlite_utils import Database

from approvals import audit
from approvals.errors import StoreError
from approvals.lifecycle import OPEN_OR_IN_DOUBT
from approvals.model import AuditEvent, HeldCall
from approvals.store.sqlite import lock_file, schema
from approvals.store.sqlite.read_only import open_read_only
from approvals.store.sqlite.schema_check import check_schema
from approvals.store.sqlite.seal import Seal
from approvals.store.sqlite.trail import read_last_state
from approvals.summaries import Summary

#: The most findings that are reported of each kind.
MAX_FINDINGS = 20

_RESTORE = "restore a good copy"
_RESTORE_OR_KEY = "if store_key is the key that wrote the store, restore a good copy"

#: The sealed tables besides the calls: their sealed columns, the name of a row, and the remedy.
_TABLES = {
    "logins": (
        "id_sha256, approver, created_at, expires_at, seal",
        "login of {approver}",
        "it is not accepted; sign in again",
    ),
    "codes": (
        "id_sha256, approver, created_at, expires_at, seal",
        "one-time code of {approver}",
        "it is not accepted; ask for another",
    ),
    "sessions": (
        "server, id, agent, opening, at, seal",
        "session of {agent} with {server}",
        "it is not accepted; restart the agent",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault in a store's file, and its remedy."""

    fault: str
    remedy: str = _RESTORE

    def __str__(self) -> str:
        """Return the line to print."""
        return f"{self.fault}: {self.remedy}."


@dataclass(frozen=True, slots=True)
class FileReport:
    """The faults in a store's file; if there are none, also how many calls and audit events it has."""

    calls: int
    events: int
    findings: Sequence[Finding]


def check_file(path: Path, key: bytes = b"") -> FileReport:
    """Check the file of a stopped or a running gateway; raises `StoreError` if it cannot be opened as a store.

    Everything is read in one snapshot. A running gateway can write meanwhile: the file is not locked.
    """
    try:
        before, noted = _identify(path), _read_last_event(path)
        if before is not None and not before[0]:
            raise StoreError("it is empty, so it was truncated; restore a good copy")
        with open_read_only(path) as connection:
            db = Database(connection, execute_plugins=False)
            db.begin()
            schema.check_current(connection)
            findings = list(_find_faults(db, key, noted))
            calls, events = (0, 0) if findings else _count_rows(db)
        after = _identify(path)
    except (OSError, sqlite3.Error, StoreError) as error:
        raise StoreError(f"The store {path} cannot be checked: {error}.") from error
    if before != after:
        raise StoreError(f"A gateway started or stopped while {path} was checked; check it again.")
    return FileReport(calls, events, findings)


def _identify(path: Path) -> tuple[int, int] | None:
    """Return the size and the time of the last change of a file that no gateway uses; None while one uses it."""
    if path.with_name(f"{path.name}-wal").exists():
        return None
    found = path.stat()
    return found.st_size, found.st_mtime_ns


_CALLS = """
    SELECT id, version, state, key, digest, agent, server, tool, created_at, expires_at, settled_at, body, seal
    FROM calls ORDER BY n
"""
_SUMMARIES = """
    SELECT calls.id, summaries.id, version, summaries.state, summaries.agent, summaries.server, summaries.tool, task,
        summaries.created_at, size, summary, summaries.seal
    FROM calls LEFT JOIN summaries USING (n) ORDER BY n
"""


def _read_last_event(path: Path) -> str:
    """Return the note of the last committed event, or "" without one. Read before the snapshot, it is never newer."""
    try:
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return lock_file.read(lock).get("event", "")
    finally:
        os.close(lock)


def _find_faults(db: Database, key: bytes, noted: str) -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("pages", lambda: _check_pages(db)),
        ("tables", lambda: starmap(Finding, check_schema(db))),
        ("held calls", lambda: _check_calls(db.conn, key)),
        ("summaries of held calls", lambda: _check_summaries(db, key)),
        *((name, lambda name=name: _check_table(name, db, key)) for name in _TABLES),
        ("audit trail", lambda: _check_trail(db, key, noted)),
    )
    for name, check in checks:
        yield from _limit(name, check())


def _limit(name: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from islice(findings, MAX_FINDINGS)
        if next(findings, None) is not None:
            yield Finding(f"The {name} have further faults, which are not listed")
    except (TypeError, ValueError, msgspec.MsgspecError, sqlite3.Error) as error:
        yield Finding(f"The {name} cannot be read ({error})")


def _check_pages(db: Database) -> Iterator[Finding]:
    for (text,) in db.execute("PRAGMA integrity_check"):
        for line in text.splitlines():
            if line != "ok" and not line.startswith("***"):
                yield Finding(f"The file is damaged ({line})")


def _check_calls(db: sqlite3.Connection, key: bytes) -> Iterator[Finding]:
    seal = Seal(key)
    for *columns, body, sealed in db.execute(_CALLS):
        call_id, version, state, *_ = columns
        try:
            call = seal.open_call(body, sealed)
        except StoreError:
            yield Finding(f"Held call {call_id} does not match its seal", _RESTORE_OR_KEY)
            continue
        if columns != _call_columns(call):
            yield Finding(f"Held call {call_id} was changed outside its sealed part")
        elif key and call.state in OPEN_OR_IN_DOUBT and (version, state) != read_last_state(call_id, db, key):
            yield Finding(f"Held call {call_id} does not match its last audit event")


def _check_summaries(db: Database, key: bytes) -> Iterator[Finding]:
    seal = Seal(key)
    for call_id, *columns, body, sealed in db.execute(_SUMMARIES):
        if body is None:
            yield Finding(f"Held call {call_id} has no summary")
            continue
        try:
            summary = seal.open_summary(body, sealed)
        except StoreError:
            yield Finding(f"The summary of held call {call_id} does not match its seal", _RESTORE_OR_KEY)
            continue
        if columns != _summary_columns(summary):
            yield Finding(f"The summary of held call {call_id} does not match the call")


def _call_columns(call: HeldCall) -> list[Any]:
    request = call.call
    names = [request.agent, request.server, request.tool]
    times = [call.created_at, call.expires_at, call.settled_at]
    return [call.id, call.version, call.state, call.key, call.digest, *names, *times]


def _summary_columns(summary: Summary) -> list[Any]:
    names = [summary.call.agent, summary.call.server, summary.call.tool]
    return [
        summary.id,
        summary.version,
        summary.state,
        *names,
        summary.task,
        summary.created_at,
        summary.size,
    ]


def _check_table(table: str, db: Database, key: bytes) -> Iterator[Finding]:
    columns, name, remedy = _TABLES[table]
    seal = Seal(key)
    for row in db.table(table).rows_where(select=columns):
        # A row of an older version has no seal.
        if row["seal"] and seal.open_row(table, tuple(row.values())) is None:
            yield Finding(f"The {name.format(**row)} does not match its seal", remedy)


def _check_trail(db: Database, key: bytes, noted: str) -> Iterator[Finding]:
    if broken := audit.verify(_read_events(db), key):
        yield Finding(f"The audit trail is broken at event {broken.seq} ({broken.why})", _RESTORE_OR_KEY)
    seq, _, digest = noted.partition(" ")
    if noted and db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone() != (digest,):
        yield Finding(
            f"The file lacks audit event {int(seq)}, which was committed",
            "restore the right files with their -wal, or continue with this one: okayed run --restored",
        )


def _read_events(db: Database) -> Iterator[AuditEvent]:
    return map(audit.from_row, db.execute("SELECT * FROM events ORDER BY seq"))


def _count_rows(db: Database) -> tuple[int, int]:
    return db.table("calls").count, db.table("events").count
