"""Rewrites upstream responses: filters headers, refuses 401 and redirects, edits tool lists."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.errors import ConnectionLostError, GatewayError
from gateway.hold.tasks import revision_2025
from gateway.upstreams.reply import Reply, read_body, replace_body
from gateway.wire import frames, protocol, sse

APPROVAL_NEEDED = "A person has to approve calls of this tool before they run; that can take a while."
Members = dict[str, msgspec.Raw]


class CredentialsRefusedError(GatewayError):
    """The server refused the gateway's credentials; the gateway's operator has to fix them."""


class RedirectedError(GatewayError):
    """The server answered with a redirect; the gateway does not follow redirects."""


def filter_reply(reply: Reply) -> Reply:
    """Return the reply with the headers that clients may see; raise for a 401 and for a redirect.

    A 401 must not reach the client: its `WWW-Authenticate` would send the client to the wrong login.
    """
    if reply.status == 401:
        reply.close()
        raise CredentialsRefusedError
    if 300 <= reply.status < 400:
        reply.close()
        raise RedirectedError
    return replace(reply, headers=protocol.response_headers(reply.headers))


def watch_for_changes(reply: Reply, on_list_changed: Callable[[], None]) -> Reply:
    """Return the reply; *on_list_changed* is called for each notification of a changed list in its stream."""
    if reply.body is not None or not reply.streams:
        return reply
    return replace(reply, chunks=_watch_chunks(reply.chunks, on_list_changed))


async def _watch_chunks(
    chunks: AsyncIterator[bytes], on_list_changed: Callable[[], None]
) -> AsyncIterator[bytes]:
    tail = b""
    async for chunk in chunks:
        if protocol.LIST_CHANGED in (tail := tail[-len(protocol.LIST_CHANGED) :] + chunk):
            on_list_changed()
            tail = b""
        yield chunk


#: Returns the changed members of a result; None for no change.
Edit = Callable[[Members], Mapping[str, Any] | None]


async def edit_result(reply: Reply, *edits: Edit) -> Reply:
    """Return the reply with its result edited; other bytes are unchanged.

    HTTP errors are not edited: a 404, for example, means to a client that its session is lost.
    """
    if not edits or reply.status >= 400:
        return reply
    if reply.streams:
        return replace(reply, chunks=_edit_events(reply.chunks, edits))
    return replace_body(reply, _edit_frame(await read_body(reply), edits))


async def _edit_events(chunks: AsyncIterator[bytes], edits: Sequence[Edit]) -> AsyncIterator[bytes]:
    async for event in sse.split_events(chunks):
        data = _edit_frame(event.data, edits) if event.data else event.data
        yield event.raw if data == event.data else event.with_data(data)


def _edit_frame(frame: bytes, edits: Sequence[Edit]) -> bytes:
    """Apply the edits to the result in one frame, in order. An unreadable frame raises `ConnectionLostError`."""
    try:
        members = frames.raw_members(frame) if frame.strip() else {}
        original = result = _object(members.get("result"))
        for edit in edits if original else ():
            result = {**result, **_encode_members(edit(result) or {})}
    except frames.UNREADABLE as error:
        raise ConnectionLostError("The server's answer could not be read.") from error
    return frame if result == original else msgspec.json.encode({**members, "result": result})


def _encode_members(members: Mapping[str, Any]) -> Members:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in members.items()}


def _object(raw: msgspec.Raw | None) -> Members:
    """Return the members of a JSON object; {} for any other value."""
    return frames.raw_members(raw) if raw is not None and bytes(raw).startswith(b"{") else {}


def hide_tools(is_hidden: Callable[[str], bool]) -> Edit:
    """Remove hidden tools from a list, which is then private to this agent (2026-07-28, caching)."""

    def edit(result: Members) -> Mapping[str, Any] | None:
        tools = _tools(result)
        kept = [tool for tool in tools if not is_hidden(_name(tool))]
        private = {"cacheScope": "private"} if "cacheScope" in result else {}
        return None if len(kept) == len(tools) else {"tools": kept, **private}

    return edit


def report_tools(report: Callable[[list[Mapping[str, Any]]], None]) -> Edit:
    """Pass the listed tools to *report*; the result is unchanged."""

    def edit(result: Members) -> Mapping[str, Any] | None:
        decoded = [msgspec.json.decode(tool) for tool in _tools(result)]
        report([tool for tool in decoded if isinstance(tool, dict)])
        return None

    return edit


def annotate_tools(needs_approval: Callable[[str], bool]) -> Edit:
    """Add a note to the description of each tool that may need approval; the list is then private to this agent."""

    def edit(result: Members) -> Mapping[str, Any] | None:
        tools = _tools(result)
        private = {"cacheScope": "private"} if "cacheScope" in result else {}
        annotated = [
            _annotate_tool(tool) if _object(tool) and needs_approval(_name(tool)) else tool for tool in tools
        ]
        return {"tools": annotated, **private} if annotated != tools else None

    return edit


def _annotate_tool(tool: msgspec.Raw) -> Any:
    definition = msgspec.json.decode(tool)
    description = f"{definition.get('description') or ''}\n\n{APPROVAL_NEEDED}".strip()
    return {**frames.raw_members(tool), "description": description}


def offer_tasks_in_tools(needs_approval: Callable[[str], bool]) -> Edit:
    """Offer tasks (2025-11-25) for each tool that may need approval."""

    def edit(result: Members) -> Mapping[str, Any] | None:
        tools = _tools(result)
        offered = [
            _offer_task_in_tool(tool) if _object(tool) and needs_approval(_name(tool)) else tool
            for tool in tools
        ]
        return {"tools": offered} if offered != tools else None

    return edit


def _offer_task_in_tool(tool: msgspec.Raw) -> Any:
    definition = frames.raw_members(tool)
    execution = _object(definition.get("execution"))
    offered = revision_2025.offer_in_tool(execution)
    return tool if offered == execution else {**definition, "execution": offered}


def _tools(result: Members) -> list[msgspec.Raw]:
    tools = result.get("tools", msgspec.Raw())
    return msgspec.json.decode(tools, type=list[msgspec.Raw]) if bytes(tools).startswith(b"[") else []


def offer_extension(result: Members) -> Mapping[str, Any] | None:
    """Offer the tasks extension in the result of server/discover (2026-07-28)."""
    capabilities = _object(result.get("capabilities"))
    extensions = _object(capabilities.get("extensions"))
    if protocol.TASKS in extensions:
        return None
    return {"capabilities": {**capabilities, "extensions": {**extensions, protocol.TASKS: {}}}}


def offer_tasks(result: Members) -> Mapping[str, Any] | None:
    """Offer tasks in the result of initialize (2025-11-25), unless the server has its own."""
    capabilities = _object(result.get("capabilities"))
    revision = msgspec.json.decode(result.get("protocolVersion", b"null"))
    offered = revision_2025.offer_in_initialize(capabilities, revision)
    return None if offered is None else {"capabilities": offered}


def _name(tool: msgspec.Raw) -> str:
    definition = msgspec.json.decode(tool)
    return str(definition.get("name", "")) if isinstance(definition, dict) else ""
