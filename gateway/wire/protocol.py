"""The five revisions of MCP as tables: eras, headers, allowed methods, HTTP statuses (PURE)."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from approvals.model import Outcome
from gateway import VERSION
from gateway.wire.frames import CallFrame, Frame, Id, Notification, Response

#: Revisions whose sessions begin with initialize (2025-11-25, basic/lifecycle, "Initialization").
HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
#: Stateless revisions (2026-07-28, basic, "Statelessness"), found by server/discover (basic/versioning).
MODERN = ("2026-07-28",)
SUPPORTED = (*HANDSHAKE, *MODERN)
_WITH_HANDSHAKE = frozenset(HANDSHAKE)

#: Reserved `_meta` keys of a stateless request (2026-07-28, basic, "_meta").
_PREFIX = "io.modelcontextprotocol/"
META_VERSION = f"{_PREFIX}protocolVersion"
META_CAPABILITIES = f"{_PREFIX}clientCapabilities"
META_CLIENT = f"{_PREFIX}clientInfo"
META_SERVER = f"{_PREFIX}serverInfo"
META_SUBSCRIPTION = f"{_PREFIX}subscriptionId"
#: The tasks extension, as clients and servers declare it (ext-tasks).
TASKS = f"{_PREFIX}tasks"

#: Error codes of 2026-07-28 (basic, "Error Codes").
HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32020, -32021, -32022
#: The HTTP status for an error code in 2026-07-28 (basic/transports/streamable-http); 200 for any other code.
HTTP_STATUS: Mapping[int, int] = {
    -32700: 400, -32600: 400, -32602: 400, -32020: 400, -32021: 400, -32022: 400, -32601: 404,
}  # fmt: skip

#: The session id in the handshake revisions (2025-11-25, basic/transports, "Session Management").
SESSION_HEADER = "mcp-session-id"
#: The request headers forwarded to a server and the response headers returned to a client. Credentials, cookies,
#: hosts and origins never cross; headers that mirror the body are built from the body.
REQUEST_HEADERS = frozenset({SESSION_HEADER, "mcp-protocol-version", "last-event-id"})
RESPONSE_HEADERS = frozenset(
    {"content-type", SESSION_HEADER, "cache-control", "x-accel-buffering", "allow", "retry-after"}
)
#: Marks a request of the stdio front, which does not build headers from arguments or resume streams of the
#: gateway; it repeats a held call instead.
FRONT_HEADER = "okayed-front"
#: The id of a held call: sent to the stdio front when its call is held, and sent back when the front repeats the call.
HOLD_HEADER = "okayed-hold"
#: Marks a gateway error whose request never reached the server. A server's header of this name is never forwarded.
UNSENT_HEADER = "okayed-unsent"

#: Methods a client may send, by era (schema.ts, "ClientRequest").
_BOTH_ERAS = {
    "tools/list", "tools/call", "resources/list", "resources/templates/list", "resources/read", "prompts/list",
    "prompts/get", "completion/complete", "tasks/get", "tasks/cancel",
}  # fmt: skip
_HANDSHAKE_ONLY = {
    "initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/list",
    "tasks/result",
}  # fmt: skip
_MODERN_ONLY = {"server/discover", "subscriptions/listen", "tasks/update"}
#: Notifications a client may send, in any era (schema.ts, "ClientNotification").
_NOTIFICATIONS = {
    "notifications/initialized", "notifications/cancelled", "notifications/progress", "notifications/tasks/status",
    "notifications/roots/list_changed", "notifications/elicitation/complete",
}  # fmt: skip


class Era(Enum):
    """Revisions with a handshake and sessions, and stateless revisions."""

    HANDSHAKE = "handshake"
    MODERN = "modern"


METHODS: Mapping[Era, frozenset[str]] = {
    Era.HANDSHAKE: frozenset(_BOTH_ERAS | _HANDSHAKE_ONLY),
    Era.MODERN: frozenset(_BOTH_ERAS | _MODERN_ONLY),
}
NOTIFICATIONS = frozenset(_NOTIFICATIONS)
#: The member of params that Mcp-Name mirrors, by method (2026-07-28, "Standard Request Headers"; ext-tasks).
NAMED_BY = {
    "tools/call": "name", "prompts/get": "name", "resources/read": "uri",
    "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId",
}  # fmt: skip

#: The part of a method that announces changed tools, prompts or resources.
LIST_CHANGED = b"list_changed"
#: The JSON-RPC id of requests that the gateway makes.
OUR_ID = "okayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """The refusal of a frame by its headers: JSON-RPC error and HTTP status."""

    code: int
    message: str
    data: Mapping[str, Any] | None = None
    status: int = 400


def era(headers: Mapping[str, str], frame: Frame | None) -> Era:
    """Return the era of a request, from its body or its version header.

    Without the header it is 2025-03-26 ("Protocol Version Header"). Unknown revisions get the stricter, modern rules.
    """
    version = headers.get("mcp-protocol-version", HANDSHAKE[1])
    return Era.HANDSHAKE if version in _WITH_HANDSHAKE and _version(frame) is None else Era.MODERN


def _version(frame: Frame | None) -> str | None:
    meta = None if frame is None or isinstance(frame, Response) else frame.params.get("_meta")
    version = meta.get(META_VERSION) if isinstance(meta, dict) else None
    return version if isinstance(version, str) else None


def is_subscription(verb: str, headers: Mapping[str, str]) -> bool:
    """Return whether an exchange is an open-ended stream: GET, or subscriptions/listen."""
    return verb == "GET" or headers.get("mcp-method") == "subscriptions/listen"


class McpHeaders(msgspec.Struct, frozen=True):
    """The headers of a request whose names begin with Mcp-, without white space around the values."""

    values: Mapping[str, str]
    #: Whether one of them is repeated; `values` has the last.
    is_repeated: bool
    #: Whether the revision in them has a handshake; 2025-03-26 if they name none.
    with_handshake: bool

    @classmethod
    def read(cls, pairs: Iterable[tuple[str, str]]) -> "McpHeaders":
        """Read them from all headers in order, with names in lower case."""
        found = [(name, value.strip()) for name, value in pairs if name.startswith("mcp-")]
        values = dict(found)
        revision = values.get("mcp-protocol-version", HANDSHAKE[1])
        return cls(values, len(values) != len(found), revision in _WITH_HANDSHAKE)


def check_headers(mcp: McpHeaders, frame: Frame) -> Rejection | None:
    """Check the headers against the body (2026-07-28, "Server Validation"); None if they match."""
    if mcp.with_handshake and _version(frame) is None:
        return None
    headers = mcp.values
    version = headers.get("mcp-protocol-version")
    # Servers answer unknown revisions themselves; only a tool call, which cannot be judged, is refused.
    if version is not None and version not in SUPPORTED and isinstance(frame, CallFrame):
        data = {"supported": list(SUPPORTED), "requested": version}
        return Rejection(
            code=UNSUPPORTED_VERSION, message=f"Protocol version {version} is not supported.", data=data
        )
    if mcp.is_repeated:
        return Rejection(code=HEADER_MISMATCH, message="An Mcp- header is repeated.")
    return _mismatch(headers, frame)


def _mismatch(headers: Mapping[str, str], frame: Frame) -> Rejection | None:
    expected = {name.lower(): value for name, value in _mirrored(frame).items()}
    for name, value in expected.items():
        if name not in headers:
            return Rejection(code=HEADER_MISMATCH, message=f"The header {name} is missing.")
        if decode_header(headers[name]) != value:
            return Rejection(code=HEADER_MISMATCH, message=f"The header {name} does not match the body.")
    return None


def _mirrored(frame: Frame) -> Mapping[str, str]:
    """Return the headers that mirror a modern frame, not yet encoded."""
    if isinstance(frame, Response):
        return {}
    version = _version(frame)
    named = frame.params.get(NAMED_BY.get(frame.method, ""))
    return (
        ({"MCP-Protocol-Version": version} if version else {})
        | {"Mcp-Method": frame.method}
        | ({"Mcp-Name": named} if isinstance(named, str) else {})
    )


def routing_headers(frame: Frame) -> Mapping[str, str]:
    """Build the headers that mirror a modern frame; {} in the handshake era."""
    if _version(frame) is None:
        return {}
    return {name: encode_header(value) for name, value in _mirrored(frame).items()}


def declares_tasks(params: Mapping[str, Any]) -> bool:
    """Return whether the client of a modern request declares the tasks extension."""
    extensions = capabilities(params).get("extensions")
    return isinstance(extensions, dict) and TASKS in extensions


def server_name(result: Mapping[str, Any]) -> str:
    """Return the server's name in its initialize or server/discover result, or ""."""
    meta = result.get("_meta")
    info = result.get("serverInfo") or (meta.get(META_SERVER) if isinstance(meta, dict) else None)
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) else ""


def has_tasks(capabilities: Mapping[str, Any]) -> bool:
    """Return whether a server's *capabilities* declare tasks, in either dialect."""
    extensions = capabilities.get("extensions")
    return "tasks" in capabilities or (isinstance(extensions, dict) and TASKS in extensions)


def supports_url_elicitation(capabilities: Mapping[str, Any]) -> bool:
    """Return whether a client's *capabilities* declare URL elicitation."""
    elicitation = capabilities.get("elicitation")
    return isinstance(elicitation, dict) and isinstance(elicitation.get("url"), dict)


def capabilities(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the capabilities that the client of a modern request declares, or {}."""
    meta = params.get("_meta")
    declared = meta.get(META_CAPABILITIES) if isinstance(meta, dict) else None
    return declared if isinstance(declared, dict) else {}


def client_name(params: Mapping[str, Any]) -> str:
    """Return the client's name in a modern request, or ""."""
    meta = params.get("_meta")
    info = meta.get(META_CLIENT) if isinstance(meta, dict) else None
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) else ""


_PLAIN = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_SENTINEL = re.compile(r"=\?base64\?([A-Za-z0-9+/]*={0,2})\?=")


def encode_header(value: str) -> str:
    """Encode a header value: plain ASCII as it is, else `=?base64?...?=` (2026-07-28, "Value Encoding")."""
    if _PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode_header(value: str) -> str | None:
    """Decode a header value; None if its encoding is not canonical."""
    match = _SENTINEL.fullmatch(value)
    if match is None:
        return value
    try:
        data = base64.b64decode(match[1], validate=True)
        return data.decode() if base64.b64encode(data).decode() == match[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def forwarded_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the client's headers that are forwarded to the server."""
    return {name: value for name, value in headers.items() if name in REQUEST_HEADERS}


def request_headers(request_era: Era, forwarded: Mapping[str, str], frame: Frame) -> Mapping[str, str]:
    """Build the headers for the server: those *forwarded* from the client, and those that mirror the body."""
    if request_era is Era.HANDSHAKE:
        return forwarded
    return {**forwarded, **{name.lower(): encode_header(value) for name, value in _mirrored(frame).items()}}


def response_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the server's headers that are forwarded to the client."""
    return {name: value for name, value in headers.items() if name.lower() in RESPONSE_HEADERS}


def is_allowed(frame: Frame, headers: Mapping[str, str]) -> bool:
    """Return whether a client may send this frame in its era. Responses are allowed where servers may send requests."""
    match frame:
        case Response():
            return era(headers, frame) is Era.HANDSHAKE
        case Notification():
            return frame.method in NOTIFICATIONS
        case _:
            return frame.method in METHODS[era(headers, frame)]


def http_status(request_era: Era, outcome: Outcome) -> int:
    """Return the HTTP status for a server's response that is not streamed."""
    if request_era is Era.HANDSHAKE or not outcome.is_error:
        return 200
    code = msgspec.json.decode(outcome.body).get("code")
    return HTTP_STATUS.get(code, 200)


def is_cancellation(frame: Frame) -> bool:
    """Return whether this is notifications/cancelled."""
    return isinstance(frame, Notification) and frame.method == "notifications/cancelled"


def cancelled_id(frame: Frame) -> Id | None:
    """Return the id of the request that this notification cancels, or None."""
    if not (isinstance(frame, Notification) and is_cancellation(frame)):
        return None
    request_id = frame.params.get("requestId")
    # bool is a subclass of int, but true is not an id.
    return request_id if type(request_id) in {str, int} else None


def finishes_handshake(frame: Frame) -> bool:
    """Return whether this is notifications/initialized."""
    return isinstance(frame, Notification) and frame.method == "notifications/initialized"


def modern_headers(method: str) -> Mapping[str, str]:
    """Return the headers of a modern request that the gateway makes."""
    return {"MCP-Protocol-Version": MODERN[0], "Mcp-Method": method}


#: The gateway's clientInfo, and the `_meta` of the modern requests that it makes.
CLIENT = {"name": "okayed", "version": VERSION}
OUR_META: Mapping[str, Any] = {META_VERSION: MODERN[0], META_CAPABILITIES: {}, META_CLIENT: CLIENT}
DISCOVER = msgspec.json.encode(
    {"jsonrpc": "2.0", "id": OUR_ID, "method": "server/discover", "params": {"_meta": OUR_META}},
)
