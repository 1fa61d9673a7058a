"""A listening socket and the application behind it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from aiohttp import web

from gateway.addresses import address
from gateway.connections import Connection, Connections

#: Seconds that a connection gets in the end when nothing waits for what it does.
LINGER = 1.0
#: Connections that the kernel keeps until they are accepted.
BACKLOG = 128


@asynccontextmanager
async def listener(app: web.Application, listen: str, connections: Connections) -> AsyncIterator[str]:
    """Serve *app* on `host:port` or `unix:/path`; yields the address it got."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=LINGER)
    await runner.setup()
    server = cast("web.Server", runner.server)
    try:
        sockets = await _open(listen, lambda: Connection(server, connections))
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(connections.watch())
            try:
                yield _name(sockets) or listen
            finally:
                watch.cancel()
                sockets.close()
    finally:
        await runner.cleanup()


async def _open(listen: str, connection: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    loop, place = asyncio.get_running_loop(), address(listen)
    if place is None:
        return await loop.create_unix_server(connection, listen.removeprefix("unix:"), backlog=BACKLOG)
    return await loop.create_server(connection, *place, backlog=BACKLOG)


def _name(server: asyncio.Server) -> str:
    """Return host and port of the first socket; "" for a Unix socket."""
    name = server.sockets[0].getsockname()
    if isinstance(name, str | bytes):
        return ""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
