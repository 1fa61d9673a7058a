"""Headers that mirror arguments of a tool call, where the tool's schema asks for them (2026-07-28, `x-mcp-header`).

What stands between could route by a header that the body contradicts, so the two are compared; and what goes on to the
server is made anew from the body. The rules are the SDK's, which is late in loading and seldom needed.
"""

from collections.abc import Mapping

from gateway.call.request import CallRequest
from gateway.tools.catalogue import Tool
from gateway.wire import protocol


def check(request: CallRequest, tool: Tool) -> protocol.Rejection | None:
    """Return why headers do not fit the arguments that they mirror, or None; a front of ours makes none."""
    if not _has_some(request, tool) or protocol.FRONT_HEADER in request.exchange.headers:
        return None
    from mcp.shared.inbound import validate_mcp_param_headers

    wrong = validate_mcp_param_headers(_schema(tool), request.arguments, dict(request.exchange.pairs))
    return None if wrong is None else protocol.Rejection(code=protocol.HEADER_MISMATCH, message=wrong.message)


def build(request: CallRequest, tool: Tool) -> Mapping[str, str]:
    """Return the headers that mirror the arguments."""
    if not _has_some(request, tool):
        return {}
    from mcp.shared.inbound import mcp_param_headers, x_mcp_header_map

    mirrored = mcp_param_headers(x_mcp_header_map(_schema(tool)), request.arguments)
    return {name.lower(): value for name, value in mirrored.items()}


def _has_some(request: CallRequest, tool: Tool) -> bool:
    return tool.has_param_headers and request.era is protocol.Era.MODERN


def _schema(tool: Tool) -> object:
    return tool.definition.get("inputSchema", {})
