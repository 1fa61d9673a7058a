"""Checks that a session still exists at the server before a held call is claimed and sent in it.

A claimed call is sent only once, so a lost session must be found before the claim. The check is MCP's ping
(2025-11-25, utilities/ping); a lost session is reopened with the stored initialize.
"""

import asyncio
from collections.abc import Mapping

from gateway.errors import GatewayError
from gateway.upstreams import Upstream, lifecycle
from gateway.wire import protocol

#: Seconds the server has to answer the ping, and again to open another session.
TIMEOUT = 5.0


class SilentError(GatewayError):
    """The server does not answer in this session; nothing was sent to it yet."""


async def ensure_session(upstream: Upstream, opening: bytes, headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return *headers* if their session exists, else headers for a new session opened with *opening*.

    Raises `SilentError` if the server does not answer, `NotSentError` if it opens no session.
    """
    if not opening or protocol.SESSION_HEADER not in headers:
        return headers
    try:
        async with asyncio.timeout(TIMEOUT):
            if await _has_session(upstream, headers):
                return headers
        async with asyncio.timeout(TIMEOUT):
            return await lifecycle.reopen_session(upstream.send, opening, headers)
    except TimeoutError as error:
        raise SilentError from error


async def _has_session(upstream: Upstream, headers: Mapping[str, str]) -> bool:
    known = upstream.knows(headers)
    return await lifecycle.has_session(upstream.send, headers) if known is None else known
