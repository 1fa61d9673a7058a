"""The gateway as a client of its own: asks a server for its tools, in whichever revision the server speaks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import UseInitializeError
from gateway.upstreams import Upstream
from gateway.upstreams.answers import NoResultError, read_result
from gateway.upstreams.lifecycle import close_session, open_session, request_frame
from gateway.wire import protocol

#: The most pages of tools that are asked for.
MAX_PAGES = 100


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
        await close_session(upstream.send, headers)


async def _open(
    upstream: Upstream,
) -> tuple[Mapping[str, str], Mapping[str, Any], Mapping[str, Any]]:
    """Find the server's revision: discover first, then the handshake.

    Returns the headers and `_meta` to go on with, and what the server said of itself.
    """
    if (discovered := await _discover(upstream)) is not None:
        return protocol.modern_headers("tools/list"), protocol.OUR_META, discovered
    params = {"protocolVersion": protocol.HANDSHAKE[-1], "capabilities": {}, "clientInfo": protocol.CLIENT}
    headers, opened = await open_session(upstream.send, params, {})
    return headers, {}, opened


def _capabilities(result: Mapping[str, Any]) -> Mapping[str, Any]:
    found = result.get("capabilities")
    return found if isinstance(found, dict) else {}


async def _discover(upstream: Upstream) -> Mapping[str, Any] | None:
    """Return what a server says of itself in the modern revision; None when it speaks handshakes only."""
    try:
        return await read_result(
            await upstream.send("POST", protocol.DISCOVER, protocol.modern_headers("server/discover"))
        )
    except (UseInitializeError, NoResultError):
        return None


async def _fetch_tools(
    upstream: Upstream, headers: Mapping[str, str], meta: Mapping[str, Any]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: Mapping[str, str] = {}
    for _ in range(MAX_PAGES):
        params = {**cursor, **({"_meta": meta} if meta else {})}
        page = await read_result(await upstream.send("POST", request_frame("tools/list", params), headers))
        listed = page.get("tools")  # null where a server written in Go has none
        found += [tool for tool in listed if isinstance(tool, dict)] if isinstance(listed, list) else []
        if not (following := page.get("nextCursor")):
            break
        cursor = {"cursor": following}
    return found
