"""Lists a server's tools as an MCP client, in any protocol revision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import UseInitializeError
from gateway.upstreams import Upstream
from gateway.upstreams.answers import NoResultError, read_result
from gateway.upstreams.lifecycle import close_session, open_session, request_frame
from gateway.wire import protocol

#: The most pages of tools to request.
MAX_PAGES = 100


@dataclass(frozen=True, slots=True)
class ServerListing:
    """A server's name, its tool definitions as listed, and whether it has tasks."""

    name: str
    tools: list[dict[str, Any]]
    tasks: bool


async def list_tools(upstream: Upstream) -> ServerListing:
    """List a server's tools, at most `MAX_PAGES` pages; raises `GatewayError` if the server does not answer."""
    headers, meta, server = await _open(upstream)
    try:
        tools = await _fetch_tools(upstream, headers, meta)
        return ServerListing(protocol.server_name(server), tools, protocol.has_tasks(_capabilities(server)))
    finally:
        await close_session(upstream.send, headers)


async def _open(
    upstream: Upstream,
) -> tuple[Mapping[str, str], Mapping[str, Any], Mapping[str, Any]]:
    """Find the server's revision: server/discover first, then initialize.

    Returns the headers and the `_meta` for further requests, and the result of discover or initialize.
    """
    if (discovered := await _discover(upstream)) is not None:
        return protocol.modern_headers("tools/list"), protocol.OUR_META, discovered
    params = {"protocolVersion": protocol.HANDSHAKE[-1], "capabilities": {}, "clientInfo": protocol.CLIENT}
    headers, initialized = await open_session(upstream.send, params, {})
    return headers, {}, initialized


def _capabilities(result: Mapping[str, Any]) -> Mapping[str, Any]:
    found = result.get("capabilities")
    return found if isinstance(found, dict) else {}


async def _discover(upstream: Upstream) -> Mapping[str, Any] | None:
    """Return the server/discover result; None for a server of the handshake revisions."""
    try:
        return await read_result(
            await upstream.send("POST", protocol.DISCOVER, protocol.modern_headers("server/discover"))
        )
    except (UseInitializeError, NoResultError):
        return None


async def _fetch_tools(
    upstream: Upstream, headers: Mapping[str, str], meta: Mapping[str, Any]
) -> list[dict[str, Any]]:
    tools: list[dict[str, Any]] = []
    cursor: Mapping[str, str] = {}
    for _ in range(MAX_PAGES):
        params = {**cursor, **({"_meta": meta} if meta else {})}
        page = await read_result(await upstream.send("POST", request_frame("tools/list", params), headers))
        listed = page.get("tools")  # Go servers send null for an empty list
        tools += [tool for tool in listed if isinstance(tool, dict)] if isinstance(listed, list) else []
        if not (following := page.get("nextCursor")):
            break
        cursor = {"cursor": following}
    return tools
