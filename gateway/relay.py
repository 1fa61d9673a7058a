"""What is done to a server's answer on its way back: credentials' refusals kept here, hidden tools taken out."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from gateway import frames, protocol, sse
from gateway.errors import GatewayError
from gateway.upstreams import Reply, whole, with_body

LIST_CHANGED = b"list_changed"
Members = dict[str, msgspec.Raw]


class CredentialsRefusedError(GatewayError):
    """The server refused the gateway's own credentials; its operator has to mend them."""


class RedirectedError(GatewayError):
    """The server answered with a redirect, which the gateway does not follow."""


def checked(reply: Reply) -> Reply:
    """Return the reply with only the headers that may cross; what concerns the gateway alone is raised instead.

    A 401 must not reach the client: its `WWW-Authenticate` would send it to log in at the wrong place.
    """
    if reply.status == 401:
        reply.close()
        raise CredentialsRefusedError
    if 300 <= reply.status < 400:
        reply.close()
        raise RedirectedError
    return replace(reply, headers=protocol.returning(reply.headers))


def watched(reply: Reply, on_list_changed: Callable[[], None]) -> Reply:
    """Return the reply unchanged, but say when the server tells that its tools have changed."""
    return replace(reply, chunks=_watch(reply.chunks, on_list_changed)) if reply.streams else reply


async def _watch(chunks: AsyncIterator[bytes], on_list_changed: Callable[[], None]) -> AsyncIterator[bytes]:
    tail = b""
    async for chunk in chunks:
        if LIST_CHANGED in (tail := tail[-len(LIST_CHANGED) :] + chunk):
            on_list_changed()
            tail = b""
        yield chunk


async def without_hidden(reply: Reply, hidden: Callable[[str], bool]) -> Reply:
    """Return the answer to tools/list without the tools that are *hidden*; the rest of it as it came."""
    if reply.streams:
        return replace(reply, chunks=_events_without(reply.chunks, hidden))
    return with_body(reply, _without(await whole(reply.chunks), hidden))


async def _events_without(
    chunks: AsyncIterator[bytes], hidden: Callable[[str], bool]
) -> AsyncIterator[bytes]:
    async for event in sse.events(chunks):
        filtered = _without(event.data, hidden) if event.data else event.data
        yield event.raw if filtered == event.data else event.carrying(filtered)


async def last_frame(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Return the last frame of a stream alone, for a client that takes JSON only."""
    data = b""
    async for event in sse.events(chunks):
        data = event.data or data
    yield data


def _without(frame: bytes, hidden: Callable[[str], bool]) -> bytes:
    """Take hidden tools out of one frame. A frame that cannot be read is not passed on."""
    if not frame.strip():
        return frame
    members = frames.members(frame)
    result = frames.members(members["result"]) if "result" in members else {}
    tools = msgspec.json.decode(result["tools"], type=list[msgspec.Raw]) if "tools" in result else []
    kept = [tool for tool in tools if not hidden(_name(tool))]
    if len(kept) == len(tools):
        return frame
    shown: Mapping[str, Any] = {**result, "tools": kept, **_private(result)}
    return msgspec.json.encode({**members, "result": shown})


def _name(tool: msgspec.Raw) -> str:
    named = msgspec.json.decode(tool)
    return str(named.get("name", "")) if isinstance(named, dict) else ""


def _private(result: Members) -> Mapping[str, str]:
    """A list that was filtered for one agent must not be cached for others (2026-07-28, caching)."""
    return {"cacheScope": "private"} if "cacheScope" in result else {}
