"""Approval services on one store that can be killed or suspended: each has its own tasks and connection."""

import asyncio
from collections.abc import Coroutine
from inspect import iscoroutinefunction
from random import Random
from typing import Any

from approvals.errors import StoreError
from approvals.identity import Directory
from approvals.service import ApprovalService

#: How often other tasks get a turn before and after each step of a store.
TURNS = (0, 0, 0, 1, 3)


class KilledError(StoreError):
    """The process of this connection was killed."""


class Connection:
    """A process's connection to a shared store.

    Once it is cut, nothing of the process reaches the store. While `running` is not set, the process is suspended.
    """

    def __init__(self, store: Any, chance: Random) -> None:
        self.is_cut = False
        self.running = asyncio.Event()
        self.running.set()
        self._store = store
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._store, name)

        async def step(*args: Any, **more: Any) -> Any:
            await self._pause()
            done = await member(*args, **more)
            await self._pause()
            return done

        def post(*args: Any, **more: Any) -> Any:
            self._check()
            return member(*args, **more)

        return step if iscoroutinefunction(member) else post if callable(member) else member

    async def _pause(self) -> None:
        for _ in range(self._chance.choice(TURNS)):
            await asyncio.sleep(0)
        await self.running.wait()
        self._check()

    def _check(self) -> None:
        if self.is_cut:
            raise KilledError


class KillableService:
    """An approval service, its connection, and the tasks that would be in its process."""

    def __init__(self, store: Any, directory: Directory, clock: Any, chance: Random) -> None:
        self.connection = Connection(store, chance)
        self.service = ApprovalService(self.connection, directory, clock=clock)
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task of this process."""
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def serve(self, job: Coroutine[Any, Any, Any]) -> Any:
        """Run *job* as a task of this process; raises `KilledError` if the process is killed meanwhile."""
        task = self.start(job)
        await asyncio.wait({task})
        if self.connection.is_cut:
            task.cancelled() or task.exception()
            raise KilledError
        return task.result()

    async def kill(self) -> None:
        """End the process: its connection is cut first, so that its clean-up reaches nothing."""
        self.connection.is_cut = True
        self.connection.running.set()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self) -> None:
        """Wait for the tasks to end."""
        while self._tasks:
            await asyncio.wait(self._tasks)
