"""Reads the newest versions of woken calls, a few at a time, so that a thousand wakeups do not start a thousand tasks."""

import asyncio
import logging
from collections import deque
from typing import Protocol

#: The most calls that are read at once.
MOST_AT_ONCE = 16
log = logging.getLogger("okayed.hold")


class Checkable(Protocol):
    """An object whose call may have changed."""

    async def check(self) -> None:
        """Read the newest version of its call, and act on it."""


class VersionChecks:
    """The checks that are due, and the tasks that do them."""

    def __init__(self) -> None:
        self._due: deque[Checkable] = deque()
        self.tasks: set[asyncio.Task[None]] = set()

    def request(self, checked: Checkable) -> None:
        """Check this object soon."""
        self._due.append(checked)
        if len(self.tasks) < MOST_AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._run())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _run(self) -> None:
        while self._due:
            try:
                await self._due.popleft().check()
            except Exception:  # one failure must not stop the checks of the others
                log.exception("a check of a held call failed")
