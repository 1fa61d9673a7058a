"""Whole gateways on one store that can be killed: each has its own tasks and connection."""

import asyncio
from contextvars import ContextVar, copy_context
from inspect import CORO_CREATED, getcoroutinestate, iscoroutine
from random import Random
from typing import Any

from gateway.app.gateway import Gateway, assemble
from gateway.app.serving import serve
from gateway.config.options import Config
from gateways import Clock
from killable_services import Connection
from random_run import Endpoint

_replica: ContextVar["KillableGateway"] = ContextVar("replica")


def _track(loop: asyncio.AbstractEventLoop, job: Any, **options: Any) -> asyncio.Task[Any]:
    """Create a task, and add it to the tasks of its gateway."""
    task = asyncio.Task(job, loop=loop, **options)
    if (replica := options.get("context", copy_context()).get(_replica, None)) is not None:
        replica.tasks.add(task)
        task.add_done_callback(replica.tasks.discard)
    return task


def _has_begun(task: asyncio.Task[Any]) -> bool:
    job = task.get_coro()
    return not iscoroutine(job) or getcoroutinestate(job) != CORO_CREATED


class KillableGateway:
    """A gateway with its listeners, on a connection to a shared store."""

    gateway: Gateway
    endpoint: Endpoint

    def __init__(self, store: Any, config: Config, clock: Clock, chance: Random) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self._connection = Connection(store, chance)
        self._config = config
        self._clock = clock

    async def start(self) -> None:
        """Start the gateway and wait until it listens."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(_track)
        context, ready = copy_context(), loop.create_future()
        context.run(_replica.set, self)
        self._main = loop.create_task(self._serve(ready), context=context)
        await asyncio.wait({ready, self._main}, return_when=asyncio.FIRST_COMPLETED)
        self.gateway, self.endpoint = ready.result() if ready.done() else self._main.result()

    async def _serve(self, ready: asyncio.Future[Any]) -> None:
        async def open_store(_config: Config, *, restored: bool = False) -> Any:
            return self._connection

        clock = self._clock
        async with assemble(self._config, clock.wall, clock.monotonic, opener=open_store) as gateway:
            async with serve(gateway) as endpoints:
                ready.set_result((gateway, Endpoint(f"{endpoints.agents}notes", endpoints.inbox.rstrip("/"))))
                await asyncio.Event().wait()

    async def sweep(self) -> None:
        """Sweep, and wake the waiting clients: the clock was moved."""
        await self.gateway.service.sweep()
        self.gateway.service.wakeups.wake_all()

    async def kill(self) -> None:
        """End the gateway: its connection is cut first, so that its clean-up reaches nothing."""
        self._connection.is_cut = True
        cancelled: set[asyncio.Task[Any]] = set()
        while living := self.tasks - {asyncio.current_task()}:
            # A connection that was just accepted is closed only by a task that has begun.
            begun = {task for task in living - cancelled if _has_begun(task)}
            for task in begun:
                task.cancel()
            cancelled |= begun
            await asyncio.sleep(0)
        await asyncio.gather(*cancelled, return_exceptions=True)

    async def stop(self) -> None:
        """End the gateway in order."""
        self._main.cancel()
        await asyncio.wait(self.tasks - {asyncio.current_task()})
        assert self._main.cancelled(), self._main.exception()
