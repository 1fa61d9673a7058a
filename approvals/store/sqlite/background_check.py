"""The check of a large file in the background. It takes seconds for each gigabyte."""

import asyncio
import contextlib
import logging
import sqlite3
import threading

from approvals.store.sqlite.file import StoreFile, find_damage
from approvals.store.sqlite.health import Health, is_temporary

#: Seconds between attempts to interrupt the check: SQLite ignores an interrupt before the first statement.
INTERRUPT_EVERY = 0.02

logger = logging.getLogger("okayed.store")


class BackgroundCheck:
    """Checks the file while the store is used, in its own thread and on its own connection; damage stops the store."""

    def __init__(self, file: StoreFile, health: Health) -> None:
        """Start the check; raises `StoreError` when the file cannot be opened."""
        self._file = file
        self._health = health
        self._db = file.connect_reader()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="okayed-check", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Interrupt the check if it still runs. The file then stays unchecked, and the next start checks it."""
        self._stopping = True
        await asyncio.to_thread(self._interrupt)

    def _interrupt(self) -> None:
        while self._thread.is_alive():
            with contextlib.suppress(sqlite3.ProgrammingError):  # the thread has closed the connection
                self._db.interrupt()
            self._thread.join(INTERRUPT_EVERY)

    # In the thread.

    def _run(self) -> None:
        logger.info("the last stop was not clean; checking the whole file in the background")
        with contextlib.closing(self._db):
            try:
                damage = find_damage(self._db)
            except sqlite3.Error as error:
                self._report(error)
            else:
                self._conclude(damage)

    def _report(self, error: sqlite3.Error) -> None:
        if is_temporary(error):
            logger.warning("the file could not be checked (%s); the next start checks it", error)
        elif not self._stopping:
            self._conclude(str(error))

    def _conclude(self, damage: str | None) -> None:
        if damage is not None:
            self._health.fail(f"{self._file.path} is damaged: {damage}", damaged=True)
        else:
            self._file.is_intact = True
            logger.info("the whole file was checked and is not damaged")
