"""A session from the client's side: initialize, ping, cancel, end (MCP 2025-11-25, Lifecycle).

The gateway opens its own sessions to list tools. With a client's stored initialize it also reopens a lost session: in
the stdio front (at its gateway), in the proxy (at a server), and in a run before it claims its call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from secrets import token_hex
from typing import Any

import msgspec

from gateway.errors import ConnectionLostError, GatewayError, NotSentError
from gateway.upstreams import answers
from gateway.upstreams.reply import Reply
from gateway.wire import frames, protocol

#: Does one exchange: verb, body, headers. Raises `NotSentError` or `ConnectionLostError`, as `Upstream.send` does.
Send = Callable[[str, bytes, Mapping[str, str]], Awaitable[Reply]]

INITIALIZED = msgspec.json.encode({"jsonrpc": "2.0", "method": "notifications/initialized"})
METHOD_NOT_FOUND = -32601
#: Seconds a server has to acknowledge the end of a session, or a cancellation. Nothing should wait longer for these.
CLOSE_TIMEOUT = 2.0


class SessionRefusedError(NotSentError):
    """The server has ended the session and would not open another."""


async def open_session(
    send: Send, params: Mapping[str, Any] | msgspec.Raw, headers: Mapping[str, str]
) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """Do the handshake with the *params* of an initialize; returns *headers* for the new session, and the result.

    If the handshake fails, the session is closed. Raises `NoResultError` if the server refuses, or as `Send` does.
    """
    reply = await send("POST", request_frame("initialize", params), {})
    session = reply.header(protocol.SESSION_HEADER)
    session_header = {protocol.SESSION_HEADER: session} if session else {}
    try:
        result = await answers.read_result(reply)
        agreed = {"mcp-protocol-version": str(result.get("protocolVersion", protocol.HANDSHAKE[-1]))}
        renewed = {**agreed, **headers, **session_header}
        (await send("POST", INITIALIZED, renewed)).close()
    except BaseException:
        await close_session(send, session_header)
        raise
    return renewed, result


async def reopen_session(send: Send, opening: bytes, headers: Mapping[str, str]) -> Mapping[str, str]:
    """Open a session like the lost one in *headers*; returns the headers with the new session's id.

    *opening* is the params of the client's initialize, as JSON. Raises `NotSentError`: the request that needs the
    session was not sent. Raises `SessionRefusedError` if the server answers without a session.
    """
    kept = {
        name: value
        for name, value in headers.items()
        if name not in {protocol.SESSION_HEADER, "last-event-id"}
    }
    try:
        return (await open_session(send, msgspec.Raw(opening), kept))[0]
    except answers.NoResultError as error:
        raise SessionRefusedError from error
    except ConnectionLostError as error:
        raise NotSentError(
            "The connection broke while the session was reopened; nothing was sent."
        ) from error


async def has_session(send: Send, headers: Mapping[str, str]) -> bool:
    """Return whether the server has the session in *headers*: it answers a ping, even with "method not found"."""
    request_id = f"{protocol.OUR_ID}-{token_hex(8)}"  # an id may be used once in a session
    try:
        reply = await send("POST", request_frame("ping", {}, request_id), headers)
        outcome = await answers.read_outcome(reply, request_id, lambda _: None)
    except GatewayError:
        return False
    return not outcome.is_error or _error_code(outcome.body) == METHOD_NOT_FOUND


def _error_code(error: bytes) -> Any:
    decoded = msgspec.json.decode(error)
    return decoded.get("code") if isinstance(decoded, dict) else None


async def cancel_call(send: Send, call: frames.CallFrame, headers: Mapping[str, str]) -> bool:
    """Send notifications/cancelled for *call*; False in 2026-07-28, where closing the stream cancels."""
    if protocol.era(headers, call) is protocol.Era.MODERN:
        return False
    params = {"requestId": call.id, "reason": "The gateway no longer waits for the answer."}
    with suppress(GatewayError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            body = frames.build_notification("notifications/cancelled", params)
            (await send("POST", body, headers)).close()
    return True


async def close_session(send: Send, headers: Mapping[str, str]) -> None:
    """End the session in *headers*, if any; errors and slow servers are ignored."""
    if protocol.SESSION_HEADER in headers:
        with suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                (await send("DELETE", b"", headers)).close()


def request_frame(
    method: str, params: Mapping[str, Any] | msgspec.Raw, request_id: str = protocol.OUR_ID
) -> bytes:
    """Return a request of the gateway's own."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
