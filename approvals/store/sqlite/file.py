"""The store's file: one gateway at a time, never made where one should be, refused when it is not what was left.

Beside it lies `<file>.lock`: locked as long as a gateway runs, with notes such as the last audit event that was
committed (see `lock_file`). So a file that was removed, cut short, put back from an older copy or robbed of its `-wal` is noticed.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from approvals.errors import StoreError, StoreTaken
from approvals.store.sqlite import lock_file, schema

_PRAGMAS = (
    "PRAGMA busy_timeout=5000",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    # On macOS a plain fsync does not reach the disk.
    "PRAGMA fullfsync=ON",
    "PRAGMA foreign_keys=ON",
    "PRAGMA cell_size_check=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA journal_size_limit=67108864",
)


class StoreFile:
    """A locked database file."""

    def __init__(self, path: Path) -> None:
        """Lock *path* for this process; raises `StoreError` when another has it or its folder is not there."""
        self.path = path
        self.lock_path = path.with_name(f"{path.name}.lock")
        self._head = ""
        try:
            self._lock = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise StoreError(f"There is no folder {path.parent} for the store; make it first.") from error
        except OSError as error:
            raise StoreError(
                f"The store's folder {path.parent} cannot be written to ({error.strerror})."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StoreTaken(
                f"Another gateway uses {path} already; stop it, or give this one a store of its own."
            ) from error

    def connect(self, *, restored: bool = False) -> sqlite3.Connection:
        """Open the database, made new only when there never was one; raises `StoreError` with the cause when it is bad.

        With *restored* it may lack events that were committed.
        """
        try:
            if not self.path.exists():
                self._create()
            connection = self._open(restored=restored)
            self._was = self._identity()
        except (OSError, sqlite3.Error, StoreError) as error:
            raise StoreError(f"The store {self.path} cannot be used: {error}.") from error
        return connection

    def _create(self) -> None:
        if "event" in self.noted():
            raise StoreError(
                f"it was removed; put it back, or delete {self.lock_path} to begin anew without it"
            )
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_connection(fresh)) as connection:
            schema.create(connection)
        fresh.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _open(self, *, restored: bool) -> sqlite3.Connection:
        if not self.path.is_file():
            raise StoreError("it is not a file")
        if not self.path.stat().st_size:
            raise StoreError(
                "it is empty, so it was cut short; put a good copy back, or delete it to begin anew"
            )
        connection = _connection(self.path)
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise StoreError(f"it is damaged ({found.splitlines()[-1]}); put a good copy back")
            schema.recognise(connection)
            self.path.chmod(0o600)
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            schema.bring_up_to_date(connection)
            if not restored:
                self._compare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _compare(self, connection: sqlite3.Connection) -> None:
        """Refuse a file without the last event that was committed to it."""
        if not (event := self.noted().get("event")):
            return
        seq, _, digest = event.partition(" ")
        found = connection.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
        if found != (digest,):
            raise StoreError(
                f"it lacks audit event {seq} that was committed, so its -wal file is missing or an older copy was"
                " put back; put the right files back, or go on with what is there: okayed run --restored"
            )

    def noted(self) -> Mapping[str, str]:
        """Return what stands in `.lock`, by name."""
        return lock_file.read(self._lock)

    def note(self, **values: str) -> None:
        """Write down values by name, and sync them; raises `StoreError`."""
        try:
            for name, value in values.items():
                lock_file.write(self._lock, name, value)
            os.fsync(self._lock)
        except OSError as error:
            raise StoreError(f"{self.lock_path} cannot be written ({error.strerror}).") from error

    def committed(self, connection: sqlite3.Connection) -> None:
        """Note the last event that is committed. Not synced: after a power cut it says less, never more."""
        # The commit stands whatever happens here; then the note stays an older one.
        with contextlib.suppress(OSError, sqlite3.Error):
            row = connection.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
            head = f"{row[0]:020d} {row[1]}" if row else ""
            if head != self._head:
                lock_file.write(self._lock, "event", head)
                self._head = head

    def _identity(self) -> tuple[tuple[int, int], ...]:
        return tuple((found.st_dev, found.st_ino) for found in (self.path.stat(), self.lock_path.stat()))

    def still_ours(self) -> None:
        """Raise `StoreError` when the file, or its lock, was removed or replaced: SQLite would write into the void."""
        try:
            same = self._identity() == self._was
        except OSError:
            same = False
        if not same:
            raise StoreError(f"{self.path} or its lock was removed or replaced while the gateway ran")

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _connection(path: Path) -> sqlite3.Connection:
    """Open an existing file; transactions are begun and ended by hand."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
    )
