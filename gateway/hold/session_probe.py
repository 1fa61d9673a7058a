"""Makes sure that a server still has a session, before a held call is claimed and sent in it.

A call is sent once after its claim, so a lost session has to show before. The server is asked with the protocol's
ping (MCP 2025-11-25, utilities/ping). A lost session is opened again with the stored initialize.
"""

import asyncio
from collections.abc import Mapping

from gateway.errors import GatewayError
from gateway.upstreams import Upstream, lifecycle
from gateway.wire import protocol

#: Seconds a server has to answer the ping, and as many to open another session.
PATIENCE = 5.0


class SilentError(GatewayError):
    """The server does not answer in this session; nothing was sent to it yet."""


async def ensured(upstream: Upstream, opening: bytes, headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return *headers* when the server has their session, else those of a new session, opened with *opening*.

    Raises `SilentError` when the server does not answer, `NotSentError` when it opens no new session.
    """
    if not opening or protocol.SESSION_HEADER not in headers:
        return headers
    try:
        async with asyncio.timeout(PATIENCE):
            if await _has(upstream, headers):
                return headers
        async with asyncio.timeout(PATIENCE):
            return await lifecycle.reopen_session(upstream.send, opening, headers)
    except TimeoutError as error:
        raise SilentError from error


async def _has(upstream: Upstream, headers: Mapping[str, str]) -> bool:
    known = upstream.knows(headers)
    return await lifecycle.has_session(upstream.send, headers) if known is None else known
