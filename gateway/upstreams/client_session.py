"""aiohttp's client, for everything but MCP servers: token endpoints, keys, checkpoints."""

from collections.abc import AsyncIterator

import aiohttp

from gateway.errors import ConnectionLostError
from gateway.upstreams.http1.pool import CONNECT_SECONDS, KEEP_ALIVE_SECONDS


def open_client_session() -> aiohttp.ClientSession:
    """Open a client session without cookies or a User-Agent; the caller closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent",),
        max_line_size=16 << 10,
        read_bufsize=1 << 18,
    )


async def read_chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body in chunks; raises `ConnectionLostError` if it ends early."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise ConnectionLostError from error
