"""The lock that `okayed run` holds on `<file>.run` while it is alive, so that no embedded gateway takes its place.

The kernel releases the lock when the process ends, however it ends.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from approvals.errors import StoreError, StoreTaken

#: Attempts of a `run`, and seconds between them: `is_held_by_run` holds the lock for an instant.
TRIES = 10
INSTANT = 0.02


@contextmanager
def hold_run_lock(store: Path) -> Iterator[None]:
    """Hold the run lock of a store, from before the store is opened; raises `StoreTaken` when another `run` holds it."""
    try:
        lock = os.open(_lock_path(store), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"The store's folder {store.parent} cannot be written to ({error.strerror})."
        ) from error
    try:
        _lock(lock, store)
        yield
    finally:
        os.close(lock)


def is_held_by_run(store: Path) -> bool:
    """Return whether a `run` uses the store or waits for it."""
    try:
        lock = os.open(_lock_path(store), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _lock(lock: int, store: Path) -> None:
    for left in reversed(range(TRIES)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not left:
                raise StoreTaken(
                    f"Another `okayed run` uses {store}. Stop it, or give this gateway its own store."
                ) from error
            time.sleep(INSTANT)
        else:
            return


def _lock_path(store: Path) -> Path:
    return store.with_name(f"{store.name}.run")
