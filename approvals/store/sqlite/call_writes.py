"""Writes held calls and their summaries, in the writer's thread: the calls of several jobs in a few statements."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from approvals.errors import Conflict
from approvals.lifecycle import last_changed_at
from approvals.model import HeldCall
from approvals.store.sqlite import statements
from approvals.store.sqlite.many_rows import insert_rows
from approvals.store.sqlite.seal import Seal
from approvals.summaries import size


@dataclass(frozen=True, slots=True)
class CallWrite:
    """The rows of a call and its summary, and the time of the change."""

    row: tuple[Any, ...]
    summary: tuple[Any, ...]
    at: float


def encode_new(call: HeldCall, seal: Seal) -> CallWrite:
    """Encode a new call; raises `StoreError` when it cannot be written as JSON."""
    request = call.call
    names = (request.agent, request.server, request.tool, call.created_at)
    row, summary = seal.columns(call)
    return CallWrite(
        (*row, call.id, call.key, *names), (*summary, call.id, *names, size(call)), last_changed_at(call)
    )


def encode_change(old: HeldCall, new: HeldCall, seal: Seal) -> CallWrite:
    """Encode the new value of a call; raises `StoreError` when it cannot be written as JSON."""
    row, summary = seal.columns(new)
    return CallWrite((*row, old.id, old.version), (*summary, old.id), last_changed_at(new))


def insert_calls(db: sqlite3.Connection, calls: Sequence[CallWrite]) -> None:
    """Insert calls; raises `Conflict` when one of them exists, or an open call with its key."""
    (first,) = db.execute(statements.NEXT_ROW).fetchone()
    try:
        insert_rows(db, statements.INSERT_CALL, [(n, *call.row) for n, call in enumerate(calls, first)])
    except sqlite3.IntegrityError as error:
        raise Conflict from error
    insert_rows(db, statements.INSERT_SUMMARY, [(n, *call.summary) for n, call in enumerate(calls, first)])
    _keep_time(db, calls)


def swap_calls(db: sqlite3.Connection, changes: Sequence[CallWrite]) -> None:
    """Replace calls; raises `Conflict` when one of them is not the stored version."""
    if db.executemany(statements.SWAP_CALL, [change.row for change in changes]).rowcount != len(changes):
        raise Conflict
    db.executemany(statements.SWAP_SUMMARY, [change.summary for change in changes])
    _keep_time(db, changes)


def _keep_time(db: sqlite3.Connection, writes: Sequence[CallWrite]) -> None:
    db.execute(statements.KEEP_TIME, (max(write.at for write in writes),))
