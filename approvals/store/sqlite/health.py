"""The health of a store: after a failure of its file, none of its threads accepts work.

The state of the disk is then unknown. Also sorts SQLite's errors: about the file, or about one job's values.
"""

import logging
import sqlite3
import threading

from approvals.errors import StoreError

#: Failures that leave the file unchanged and may be temporary.
_TEMPORARY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})

logger = logging.getLogger(__name__)


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

    def fail(self, cause: object, remedy: str = "repair it and restart") -> StoreError:
        """Keep and log a failure, unless there was one before; return the error for the callers."""
        with self._lock:
            if self.failure is None:
                self.failure = f"The store failed ({cause}) and accepts no more work; {remedy}."
                logger.critical("store: %s", self.failure)
            return StoreError(self.failure)


def is_temporary(error: Exception) -> bool:
    """Return whether the same work may succeed later."""
    code = getattr(error, "sqlite_errorcode", None)  # an extended code; its low byte is the primary one
    return code is not None and code & 0xFF in _TEMPORARY


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
