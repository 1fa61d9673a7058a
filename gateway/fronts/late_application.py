"""An aiohttp application that is imported and built when a connection first needs it.

That takes a fifth of a second, so it happens in a thread: the loop keeps serving agents.
"""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

from gateway.config.options import Listen
from gateway.fronts import listener
from gateway.fronts.connection_limits import FULL, Connections, PeerTimer, Phase

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger("okayed.server")


class LateApplication:
    """The application, and its connections once it is built."""

    def __init__(self, build: Callable[[], "web.Application"], connections: Connections) -> None:
        """*build* imports and builds the application; it is called in a thread."""
        self._build = build
        self._connections = connections
        self._starting = asyncio.Lock()
        self._server: web.Server | None = None
        self._running = AsyncExitStack()

    async def connection(self, timer: PeerTimer | None = None) -> asyncio.Protocol:
        """Return the protocol of a connection; *timer* is that of a connection which another front served so far."""
        async with self._starting:
            if self._server is None:
                self._server = await self._start()
        from gateway.fronts.aiohttp_connection import AiohttpConnection

        return AiohttpConnection(self._server, self._connections, timer)

    async def _start(self) -> "web.Server":
        app = await asyncio.to_thread(self._import)
        from gateway.fronts.aiohttp_connection import run_app

        return await self._running.enter_async_context(run_app(app, listener.CLOSE_SECONDS))

    def _import(self) -> "web.Application":
        """Build the application. Its objects are excluded from garbage collection, as startup objects are."""
        gc.disable()
        try:
            return self._build()
        finally:
            if gc.get_freeze_count():
                gc.freeze()
            gc.enable()

    async def close(self) -> None:
        """Close its connections after their requests, at most `listener.CLOSE_SECONDS` later."""
        await self._running.aclose()


@asynccontextmanager
async def open_late_listener(
    build: Callable[[], "web.Application"], listen: Listen, connections: Connections
) -> AsyncIterator[str]:
    """Serve the application that *build* returns; yields the address, and raises, as `open_sockets` does."""
    application = LateApplication(build, connections)
    waiting: set[asyncio.Task[None]] = set()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(application.close)
        stack.push_async_callback(_cancel, waiting)
        connection = partial(_WaitingConnection, application, connections, waiting)
        yield await stack.enter_async_context(listener.open_sockets(listen, connections, connection))


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


class _WaitingConnection(asyncio.Protocol):
    """A connection that waits for its application. Its first bytes are kept, all others stay in the kernel."""

    phase = Phase.NEW

    def __init__(
        self, application: LateApplication, connections: Connections, waiting: set[asyncio.Task[None]]
    ) -> None:
        self._application = application
        self._connections = connections
        self._waiting = waiting
        self._received = b""

    def is_overdue(self, _now: float) -> bool:
        """Return False: it waits for the gateway, not for its peer."""
        return False

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the application, or refuse the connection at the limit."""
        self._transport = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        if not self._connections.admit(self, loop.time()):
            self._transport.write(FULL)
            self._transport.close()
            return
        task = loop.create_task(self._replace())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def data_received(self, data: bytes) -> None:
        """Keep the bytes and read no more. A pause in `connection_made` has no effect: uvloop starts to read after it."""
        self._received += data
        self._transport.pause_reading()

    def connection_lost(self, _error: BaseException | None) -> None:
        """Remove the connection."""
        self._connections.discard(self)

    async def _replace(self) -> None:
        """Let the application serve the connection from now on."""
        try:
            successor = await self._application.connection()
        except BaseException as error:
            self.abort()
            if not isinstance(error, Exception):
                raise
            log.exception("the application of a connection could not be started")
            return
        self._connections.discard(self)
        if not self._transport.is_closing():
            self._transport.set_protocol(successor)
            successor.connection_made(self._transport)
            self._transport.resume_reading()  # before the successor may pause it
            if self._received:
                successor.data_received(self._received)
