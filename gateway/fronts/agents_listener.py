"""The agents' listener: plain requests are served by `gateway.fronts.plain`, all others by aiohttp."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from gateway.config.options import Listen
from gateway.fronts.connections import Connections, PeerTimer
from gateway.fronts.endpoint import Endpoint
from gateway.fronts.listener import LINGER, open_sockets
from gateway.fronts.plain import PlainConnection
from gateway.fronts.plain_front import PlainFront

if TYPE_CHECKING:
    from aiohttp import web

    from gateway.fronts.aiohttp_connection import Connection


@asynccontextmanager
async def open_agents_listener(
    endpoint: Endpoint, listen: Listen, connections: Connections
) -> AsyncIterator[str]:
    """Serve agents; yields the address, and raises, as `open_sockets` does."""
    async with AsyncExitStack() as stack:
        odd_requests = _AiohttpSide(endpoint, connections)
        stack.push_async_callback(odd_requests.close)
        front = PlainFront(endpoint, connections, odd_requests.connection, LINGER)
        stack.push_async_callback(front.close)
        yield await stack.enter_async_context(
            open_sockets(listen, connections, lambda: PlainConnection(front))
        )


class _AiohttpSide:
    """aiohttp's side of the listener. It is imported and started when a connection first needs it."""

    def __init__(self, endpoint: Endpoint, connections: Connections) -> None:
        self._endpoint = endpoint
        self._connections = connections
        self._running = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._server: web.Server | None = None

    async def connection(self, timer: PeerTimer) -> "Connection":
        """Return the protocol that takes a connection over; the timer goes on."""
        from gateway.fronts.aiohttp_connection import Connection, run_app
        from gateway.fronts.http import build_app

        async with self._starting:
            if self._server is None:
                app = run_app(build_app(self._endpoint), LINGER)
                self._server = await self._running.enter_async_context(app)
        return Connection(self._server, self._connections, timer)

    async def close(self) -> None:
        """Close its connections after their exchanges, at most LINGER seconds later."""
        await self._running.aclose()
