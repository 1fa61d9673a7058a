"""The gateway as a client of its own: asks a server for its tools, in whichever revision the server speaks."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import msgspec

from gateway.errors import CutError, GatewayError, NotSentError, UseInitializeError
from gateway.upstreams import Upstream, answers
from gateway.upstreams.reply import Reply, read_body
from gateway.wire import frames, protocol, sse

INITIALIZED = msgspec.json.encode({"jsonrpc": "2.0", "method": "notifications/initialized"})
#: The most pages of tools that are asked for.
MAX_PAGES = 100
METHOD_NOT_FOUND = -32601
#: Seconds a server has to take note that a session of ours, or a call, is over; nobody should wait for that.
CLOSE_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class ServerListing:
    """What a server says of itself: its name, its tools' definitions as it gave them, whether it has tasks of its own."""

    name: str
    tools: list[dict[str, Any]]
    tasks: bool


async def list_tools(upstream: Upstream) -> ServerListing:
    """Return what a server offers; raises `GatewayError` when it cannot be asked."""
    headers, meta, opened = await _open(upstream)
    try:
        tools = await _fetch_tools(upstream, headers, meta)
        return ServerListing(protocol.server_name(opened), tools, protocol.has_tasks(_capabilities(opened)))
    finally:
        await close_session(upstream, headers)


async def _open(
    upstream: Upstream,
) -> tuple[Mapping[str, str], Mapping[str, Any], Mapping[str, Any]]:
    """Find the server's revision: discover first, then the handshake.

    Returns the headers and `_meta` to go on with, and what the server said of itself.
    """
    if (discovered := await _discover(upstream)) is not None:
        return protocol.modern_headers("tools/list"), protocol.OUR_META, discovered
    params = {"protocolVersion": protocol.HANDSHAKE[-1], "capabilities": {}, "clientInfo": protocol.CLIENT}
    headers, opened = await _initialize(upstream, params, {})
    return headers, {}, opened


async def _initialize(
    upstream: Upstream, params: Mapping[str, Any] | msgspec.Raw, headers: Mapping[str, str]
) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """Do a handshake; returns *headers* with what names the session in them, and what the server said of itself.

    A session that could only be half opened is ended.
    """
    reply = await upstream.send("POST", _request("initialize", params), {})
    session = reply.header(protocol.SESSION_HEADER)
    named = {protocol.SESSION_HEADER: session} if session else {}
    try:
        opened = await _read_result(reply)
        agreed = {"mcp-protocol-version": str(opened.get("protocolVersion", protocol.HANDSHAKE[-1]))}
        ours = {**agreed, **headers, **named}
        (await upstream.send("POST", INITIALIZED, ours)).close()
    except BaseException:
        await close_session(upstream, named)
        raise
    return ours, opened


def _capabilities(result: Mapping[str, Any]) -> Mapping[str, Any]:
    found = result.get("capabilities")
    return found if isinstance(found, dict) else {}


async def open_session(upstream: Upstream, opening: bytes, headers: Mapping[str, str]) -> Mapping[str, str]:
    """Open a session as a client opened its own; returns *headers* with the new session's id.

    Raises `NotSentError` when the server does not let us: the call that needs it was not sent.
    """
    kept = {
        name: value
        for name, value in headers.items()
        if name not in {protocol.SESSION_HEADER, "last-event-id"}
    }
    try:
        return (await _initialize(upstream, msgspec.Raw(opening), kept))[0]
    except NotSentError:
        raise
    except GatewayError as error:
        raise NotSentError("The server has ended the session and would not open another.") from error


async def cancel_call(upstream: Upstream, call: frames.CallFrame, headers: Mapping[str, str]) -> bool:
    """Tell a server that the answer to *call* is not waited for any more; False where hanging up says so (2026-07-28)."""
    if protocol.era(headers, call) is protocol.Era.MODERN:
        return False
    params = {"requestId": call.id, "reason": "The gateway waits for the answer no longer."}
    with suppress(GatewayError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            body = frames.notification("notifications/cancelled", params)
            (await upstream.send("POST", body, headers)).close()
    return True


async def has_session(upstream: Upstream, headers: Mapping[str, str]) -> bool:
    """Say whether a server has the session of *headers*: it answers a ping there, if only that it knows no ping."""
    request_id = f"{protocol.OUR_ID}-{token_hex(8)}"  # an id may be used once in a session
    try:
        reply = await upstream.send("POST", _request("ping", {}, request_id), headers)
        outcome = await answers.outcome_of(reply, request_id, lambda _: None)
    except GatewayError:
        return False
    return not outcome.is_error or _error_code(outcome.body) == METHOD_NOT_FOUND


def _error_code(error: bytes) -> Any:
    found = msgspec.json.decode(error)
    return found.get("code") if isinstance(found, dict) else None


async def close_session(upstream: Upstream, headers: Mapping[str, str]) -> None:
    """End a session of ours; a server that knows it no more, keeps none, or takes its time is left alone."""
    if protocol.SESSION_HEADER in headers:
        with suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                (await upstream.send("DELETE", b"", headers)).close()


async def _discover(upstream: Upstream) -> Mapping[str, Any] | None:
    """Return what a server says of itself in the modern revision; None when it speaks handshakes only."""
    try:
        return await _read_result(
            await upstream.send("POST", protocol.DISCOVER, protocol.modern_headers("server/discover"))
        )
    except (UseInitializeError, ListRefusedError):
        return None


async def _fetch_tools(
    upstream: Upstream, headers: Mapping[str, str], meta: Mapping[str, Any]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: Mapping[str, str] = {}
    for _ in range(MAX_PAGES):
        params = {**cursor, **({"_meta": meta} if meta else {})}
        page = await _read_result(await upstream.send("POST", _request("tools/list", params), headers))
        listed = page.get("tools")  # null where a server written in Go has none
        found += [tool for tool in listed if isinstance(tool, dict)] if isinstance(listed, list) else []
        if not (following := page.get("nextCursor")):
            break
        cursor = {"cursor": following}
    return found


class ListRefusedError(GatewayError):
    """The server refused to answer the gateway's question."""


def _request(
    method: str, params: Mapping[str, Any] | msgspec.Raw, request_id: str = protocol.OUR_ID
) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


async def _read_result(reply: Reply) -> dict[str, Any]:
    """Read the answer to a request of ours."""
    try:
        async for frame in _read_frames(reply):
            if isinstance(frame, dict) and frame.get("id") == protocol.OUR_ID and "method" not in frame:
                if isinstance(result := frame.get("result"), dict):
                    return result
                break
    except frames.UNREADABLE as error:
        raise ListRefusedError from error
    finally:
        reply.close()
    raise ListRefusedError


async def _read_frames(reply: Reply) -> Any:
    if not reply.streams:
        yield msgspec.json.decode(await read_body(reply.chunks))
        return
    async for event in sse.events(reply.chunks):
        if event.data:
            yield msgspec.json.decode(event.data)
    raise CutError
