"""The health of a store: after a failure of its file, none of its threads accepts work.

The state of the disk is then unknown. Also tells apart SQLite's errors about the file and about one job's values.
"""

import logging
import sqlite3
import threading

from approvals.errors import StoreError

#: Failures that leave the file unchanged and may be temporary.
_TEMPORARY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
#: The remedies after a failure: of a damaged file, and of any other.
RESTORE = "stop the gateway, list the damage with okayed check --store, and restore a good copy"
_REPAIR = "repair it and restart"

logger = logging.getLogger("okayed.store")


class Health:
    """The first failure of a store's file, if any; shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Why the store accepts no more work, as a sentence for users; None while it works.
        self.failure: str | None = None

    def check(self) -> None:
        """Raise `StoreError` after a failure."""
        if self.failure is not None:
            raise StoreError(self.failure)

    def fail(self, cause: object, *, damaged: bool = False) -> StoreError:
        """Keep and log a failure, unless there was one before; return the error for the callers."""
        remedy = RESTORE if damaged or is_damage(cause) else _REPAIR
        with self._lock:
            if self.failure is None:
                self.failure = f"The store failed ({cause}) and accepts no more work; {remedy}."
                logger.critical("%s", self.failure)
            return StoreError(self.failure)


def is_temporary(error: Exception) -> bool:
    """Return whether the same work may succeed later."""
    return _primary_code(error) in _TEMPORARY


def is_damage(error: object) -> bool:
    """Return whether SQLite found a damaged page."""
    return _primary_code(error) == sqlite3.SQLITE_CORRUPT


def _primary_code(error: object) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # the other bytes extend it


def is_fatal(error: Exception) -> bool:
    """Return whether *error* is about the file or the disk, and not about one job's values."""
    return (
        isinstance(error, sqlite3.OperationalError | sqlite3.InternalError)
        or type(error) is sqlite3.DatabaseError
    )


def refuse(error: Exception) -> StoreError:
    """Return the error for the caller of a job whose values SQLite refused."""
    refusal = StoreError(f"The store refused this: {error}.")
    refusal.__cause__ = error
    return refusal
