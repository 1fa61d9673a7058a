"""Whose turn it is at a store: a `run` keeps `<file>.run` locked while it lives, so no gateway of a sidecar takes its place.

The kernel ends the lock with the process, however that ends.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from approvals.errors import StoreError, StoreTaken

#: How often a `run` tries, and how many seconds apart: a look at the lock holds it for an instant.
TRIES = 10
INSTANT = 0.02


@contextmanager
def turn(store: Path) -> Iterator[None]:
    """Have the store's turn for a `run`, before it opens the store; raises `StoreTaken` when another `run` has it."""
    try:
        lock = os.open(_beside(store), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"The store's folder {store.parent} cannot be written to ({error.strerror})."
        ) from error
    try:
        _lock(lock, store)
        yield
    finally:
        os.close(lock)


def of_a_run(store: Path) -> bool:
    """Say whether a `run` has the turn: it uses the store, or waits for it."""
    try:
        lock = os.open(_beside(store), os.O_RDONLY | os.O_CLOEXEC)
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
                    f"Another `okayed run` uses {store} already; stop it, or give this one a store of its own."
                ) from error
            time.sleep(INSTANT)
        else:
            return


def _beside(store: Path) -> Path:
    return store.with_name(f"{store.name}.run")
