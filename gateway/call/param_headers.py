"""Mcp-Param headers: HTTP headers that repeat arguments, as the tool's schema asks (2026-07-28, `x-mcp-header`).

A proxy may route by such a header, so the client's headers must match the body. The headers sent to the server are
built from the body. The SDK implements the rules; it is imported only for tools with such headers.
"""

from collections.abc import Mapping

from gateway.call.request import Exchange
from gateway.tools.catalogue import Tool
from gateway.wire import frames, protocol


def check(exchange: Exchange, frame: frames.CallFrame, tool: Tool) -> protocol.Rejection | None:
    """Return the mismatch between headers and arguments, or None. Our stdio front sends no such headers."""
    if not _applies(exchange, frame, tool) or exchange.head.from_our_front:
        return None
    from mcp.shared.inbound import validate_mcp_param_headers

    found = validate_mcp_param_headers(_schema(tool), _arguments(frame), dict(exchange.head.pairs))
    return None if found is None else protocol.Rejection(code=protocol.HEADER_MISMATCH, message=found.message)


def build(exchange: Exchange, frame: frames.CallFrame, tool: Tool) -> Mapping[str, str]:
    """Return the headers for the arguments, with lower-case names."""
    if not _applies(exchange, frame, tool):
        return {}
    from mcp.shared.inbound import mcp_param_headers, x_mcp_header_map

    headers = mcp_param_headers(x_mcp_header_map(_schema(tool)), _arguments(frame))
    return {name.lower(): value for name, value in headers.items()}


def _applies(exchange: Exchange, frame: frames.CallFrame, tool: Tool) -> bool:
    return tool.has_param_headers and protocol.era(exchange.headers, frame) is protocol.Era.MODERN


def _arguments(frame: frames.CallFrame) -> Mapping[str, object]:
    arguments: Mapping[str, object] = frame.params.get("arguments", {})
    return arguments


def _schema(tool: Tool) -> object:
    return tool.definition.get("inputSchema", {})
