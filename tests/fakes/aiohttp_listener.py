"""A listener that serves an aiohttp application from the start."""

from contextlib import asynccontextmanager

from gateway.fronts.aiohttp_connection import AiohttpConnection, run_app
from gateway.fronts.listener import CLOSE_SECONDS, open_sockets


@asynccontextmanager
async def open_listener(app, listen, connections):
    """Serve *app*; yields the address, and raises, as `open_sockets` does."""
    async with (
        run_app(app, CLOSE_SECONDS) as server,
        open_sockets(listen, connections, lambda: AiohttpConnection(server, connections)) as at,
    ):
        yield at
