"""The store's file: used by one gateway at a time, created only if it never existed, refused when it was changed.

Next to it is `<file>.lock`, locked while a gateway runs. Its notes (see `lock_file`) name the last committed audit event.
They reveal a file that was removed, truncated, restored from an older copy, or separated from its `-wal`.

A clean stop is noted as well, so that the next start need not read a large file as a whole.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from approvals.errors import StoreError, StoreTaken
from approvals.store.sqlite import lock_file, schema
from approvals.store.sqlite.health import RESTORE, is_damage

#: A file of at most this many bytes is checked as a whole at every start, before it is used.
MAX_CHECKED_AT_START = 32 << 20

_PRAGMAS = (
    "PRAGMA busy_timeout=5000",
    # A file that was changed by hand must not run code, nor have its pages trusted.
    "PRAGMA cell_size_check=ON",
    "PRAGMA trusted_schema=OFF",
    # A large batch or sort would write held calls to a temporary file, and stop the store where none can be written.
    "PRAGMA temp_store=MEMORY",
)
_WRITER_PRAGMAS = (
    *_PRAGMAS,
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    # On macOS a plain fsync does not reach the disk.
    "PRAGMA fullfsync=ON",
    "PRAGMA foreign_keys=ON",
    "PRAGMA journal_size_limit=67108864",
    # Pages in the -wal until they are copied into the file. Many commits change the same pages, which are copied once.
    "PRAGMA wal_autocheckpoint=2000",
    # Some builds of SQLite overwrite every freed page: a migration that drops a table would write and journal all of it.
    "PRAGMA secure_delete=FAST",
)
_READER_PRAGMAS = (*_PRAGMAS, "PRAGMA query_only=ON")


class StoreFile:
    """A locked database file."""

    def __init__(self, path: Path) -> None:
        """Lock *path* for this process; raises `StoreError` when another process has it or its folder does not exist."""
        self.path = path
        self.lock_path = path.with_name(f"{path.name}.lock")
        self._head = ""
        #: Whether the file is known to be undamaged: it was checked, or not used since a clean stop.
        self.is_intact = False
        try:
            self._lock = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise StoreError(f"The store's folder {path.parent} does not exist; create it first.") from error
        except OSError as error:
            raise StoreError(
                f"The store's folder {path.parent} cannot be written to ({error.strerror})."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StoreTaken(
                f"Another gateway uses {path}. Stop it, or give this gateway its own store."
            ) from error

    def connect(
        self, *, restored: bool = False, max_checked_at_start: int = MAX_CHECKED_AT_START
    ) -> sqlite3.Connection:
        """Open the database, or create it if it never existed; raises `StoreError` with the cause when it cannot be used.

        With *restored* it may lack events that were committed. A file of more than *max_checked_at_start* bytes is not checked;
        `is_intact` says whether it must be.
        """
        try:
            if not self.path.exists():
                self._create()
            connection = self._open(restored=restored, max_checked_at_start=max_checked_at_start)
            self._opened_as = self._identity()
        except (OSError, sqlite3.Error, StoreError) as error:
            remedy = f"; {RESTORE}" if is_damage(error) else ""
            raise StoreError(f"The store {self.path} cannot be used: {error}{remedy}.") from error
        return connection

    def connect_reader(self) -> sqlite3.Connection:
        """Open the database read-only, after `connect`; raises `StoreError`.

        Close it before the writer's connection: a read-only one cannot write the -wal into the file.
        """
        try:
            connection = _connection(self.path, "ro")
            _execute(connection, _READER_PRAGMAS)
        except sqlite3.Error as error:
            raise StoreError(f"The store {self.path} cannot be read: {error}.") from error
        return connection

    def _create(self) -> None:
        if "event" in self.read_notes():
            raise StoreError(
                f"it was removed; restore it, or delete {self.lock_path} to start with a new store"
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

    def _open(self, *, restored: bool, max_checked_at_start: int) -> sqlite3.Connection:
        if not self.path.is_file():
            raise StoreError("it is not a file")
        if not self.path.stat().st_size:
            raise StoreError(
                "it is empty, so it was truncated; restore a good copy, or delete it to start with a new store"
            )
        connection = _connection(self.path)
        try:
            noted = self._read_close_note()
            if noted not in (None, self._size()) or self._size() <= max_checked_at_start:
                if damage := find_damage(connection):
                    raise StoreError(f"it is damaged ({damage}); restore a good copy")
                self.is_intact = True
            else:
                self.is_intact = noted is not None and not restored
            schema.check_origin(connection)
            self._remove_close_note()
            self.path.chmod(0o600)
            _execute(connection, _WRITER_PRAGMAS)
            schema.migrate(connection)
            if not restored:
                self._check_last_event(connection)
        except BaseException:
            self._close_unwritten(connection)
            raise
        return connection

    def _close_unwritten(self, connection: sqlite3.Connection) -> None:
        """Close a refused file without writing its -wal into it: the -wal may be from another copy.

        SQLite writes it when the last connection closes, unless that one is read-only.
        """
        with contextlib.ExitStack() as last:
            if self._has_wal():
                reader = last.enter_context(contextlib.closing(_connection(self.path, "ro")))
                with contextlib.suppress(sqlite3.Error):  # the file may be damaged
                    reader.execute("PRAGMA schema_version").fetchone()
            connection.close()

    def _has_wal(self) -> bool:
        """Return whether there is a -wal with commits in it."""
        wal = self.path.with_name(f"{self.path.name}-wal")
        return wal.exists() and wal.stat().st_size > 0

    def _check_last_event(self, connection: sqlite3.Connection) -> None:
        """Raise `StoreError` when the file lacks the last event that was committed to it."""
        if not (event := self.read_notes().get("event")):
            return
        seq, _, digest = event.partition(" ")
        found = connection.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
        if found != (digest,):
            raise StoreError(
                f"it lacks audit event {seq}, which was committed: its -wal file is missing, or it is an older copy;"
                " restore the right files, or continue with this one: okayed run --restored"
            )

    def read_notes(self) -> Mapping[str, str]:
        """Return the notes in `.lock` by name."""
        return lock_file.read(self._lock)

    def write_notes(self, **values: str) -> None:
        """Write notes to `.lock` by name, and sync them; raises `StoreError`."""
        try:
            for name, value in values.items():
                lock_file.write(self._lock, name, value)
            os.fsync(self._lock)
        except OSError as error:
            raise StoreError(f"{self.lock_path} cannot be written ({error.strerror}).") from error

    def note_commit(self, connection: sqlite3.Connection) -> None:
        """Note the last committed event. Not synced: after a power cut the note may be older, never newer."""
        # The commit is done whatever happens here; on a failure the older note stays.
        with contextlib.suppress(OSError, sqlite3.Error):
            row = connection.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
            head = f"{row[0]:020d} {row[1]}" if row else ""
            if head != self._head:
                lock_file.write(self._lock, "event", head)
                self._head = head

    def _identity(self) -> tuple[tuple[int, int], ...]:
        return tuple((found.st_dev, found.st_ino) for found in (self.path.stat(), self.lock_path.stat()))

    def check_identity(self) -> None:
        """Raise `StoreError` when the file or its lock was removed or replaced: SQLite would write to a deleted file."""
        try:
            same = self._identity() == self._opened_as
        except OSError:
            same = False
        if not same:
            raise StoreError(f"{self.path} or its lock was removed or replaced while the gateway ran")

    def _size(self) -> int:
        return self.path.stat().st_size

    def _read_close_note(self) -> int | None:
        """Return the size that the file had at its last stop; None unless that stop was clean.

        A clean stop leaves no -wal: one that is there holds commits that could not be written into the file, or was put
        there, and SQLite applies it to any file.
        """
        if self._has_wal():
            return None
        notes = self.read_notes()
        size, _, use = notes.get("closed", "").partition(" ")
        return int(size) if size.isdecimal() and use == _last_use(notes) else None

    def _remove_close_note(self) -> None:
        """Remove the note of a clean stop, durably. Called before the first write: a crash from here on is not clean."""
        if "closed" in self.read_notes():
            self.write_notes(closed="")

    def _note_close(self) -> None:
        """Note a clean stop, durably. The file itself is durable: SQLite has synced it."""
        with contextlib.suppress(OSError):
            lock_file.write(self._lock, "closed", f"{self._size()} {_last_use(self.read_notes())}")
            os.fsync(self._lock)

    def close(self, *, clean: bool = False) -> None:
        """Release the lock. *clean*: every commit is in the file, and no failure was seen."""
        if self._lock >= 0:
            if clean and self.is_intact:
                self._note_close()
            os.close(self._lock)
            self._lock = -1


def find_damage(connection: sqlite3.Connection) -> str | None:
    """Check every page, but not that the indexes match their tables; return the first damage, or None."""
    found: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    return None if found == "ok" else found.splitlines()[-1]


def _last_use(notes: Mapping[str, str]) -> str:
    """Return the notes that every use of the file changes, even by an older version."""
    return f"{notes.get('starts', '-')} {notes.get('event', '-')}"


def _connection(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """Open an existing file, in autocommit mode: the threads begin and end their transactions."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )


def _execute(connection: sqlite3.Connection, pragmas: Sequence[str]) -> None:
    for pragma in pragmas:
        connection.execute(pragma)
