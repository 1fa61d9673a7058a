"""The agents' listener: plain requests are served by `gateway.fronts.plain_connection`, all others by aiohttp."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from gateway.config.options import Listen
from gateway.fronts import listener
from gateway.fronts.connection_limits import Connections
from gateway.fronts.endpoint import Endpoint
from gateway.fronts.late_application import LateApplication
from gateway.fronts.plain_connection import PlainConnection
from gateway.fronts.plain_front import PlainFront

if TYPE_CHECKING:
    from aiohttp import web


@asynccontextmanager
async def open_agents_listener(
    endpoint: Endpoint, listen: Listen, connections: Connections
) -> AsyncIterator[str]:
    """Serve agents; yields the address, and raises, as `open_sockets` does."""
    async with AsyncExitStack() as stack:
        application = LateApplication(partial(_build_app, endpoint), connections)
        stack.push_async_callback(application.close)
        front = PlainFront(endpoint, connections, application.connection, listener.CLOSE_SECONDS)
        stack.push_async_callback(front.close)
        yield await stack.enter_async_context(
            listener.open_sockets(listen, connections, lambda: PlainConnection(front))
        )


def _build_app(endpoint: Endpoint) -> "web.Application":
    from gateway.fronts.aiohttp_front import build_app

    return build_app(endpoint)
