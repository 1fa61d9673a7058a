"""The five revisions of MCP as tables: eras, headers, which methods may pass, which status says what (PURE)."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from gateway.frames import Frame, Notification, Request, Response, ToolCall

HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = ("2026-07-28",)
SUPPORTED = (*HANDSHAKE, *MODERN)

_PREFIX = "io.modelcontextprotocol/"
META_VERSION = f"{_PREFIX}protocolVersion"
META_CAPABILITIES = f"{_PREFIX}clientCapabilities"
META_CLIENT = f"{_PREFIX}clientInfo"

HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022
#: The HTTP status that carries an error code in the revision of 2026-07-28; 200 for every other.
STATUS: Mapping[int, int] = {
    -32700: 400, -32600: 400, -32602: 400, -32020: 400, -32021: 400, -32022: 400, -32601: 404,
}  # fmt: skip

#: Request headers that go on to a server, and response headers that come back. Credentials, cookies, hosts and
#: origins do neither; what is about the body is made anew.
CROSSING = frozenset({"mcp-session-id", "mcp-protocol-version", "last-event-id", "mcp-method", "mcp-name"})
RETURNING = frozenset(
    {"content-type", "mcp-session-id", "cache-control", "x-accel-buffering", "allow", "retry-after"}
)
PARAM_HEADER = "mcp-param-"

_SHARED = {
    "tools/list", "tools/call", "resources/list", "resources/templates/list", "resources/read", "prompts/list",
    "prompts/get", "completion/complete", "tasks/get", "tasks/cancel",
}  # fmt: skip
_HANDSHAKE_ONLY = {
    "initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/list", "tasks/result",
}  # fmt: skip
_MODERN_ONLY = {"server/discover", "subscriptions/listen", "tasks/update"}
_NOTIFICATIONS = {
    "notifications/initialized", "notifications/cancelled", "notifications/progress", "notifications/roots/list_changed",
    "notifications/tasks/status", "notifications/elicitation/complete",
}  # fmt: skip


class Era(Enum):
    """Revisions with a handshake and sessions, and the one without."""

    HANDSHAKE = "handshake"
    MODERN = "modern"


METHODS: Mapping[Era, frozenset[str]] = {
    Era.HANDSHAKE: frozenset(_SHARED | _HANDSHAKE_ONLY),
    Era.MODERN: frozenset(_SHARED | _MODERN_ONLY),
}
NOTIFICATIONS = frozenset(_NOTIFICATIONS)
#: Methods whose frames name something in a header, and the member of params that names it.
NAMED_BY = {
    "tools/call": "name", "prompts/get": "name", "resources/read": "uri",
    "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId",
}  # fmt: skip

#: The id of the gateway's own requests, and its question whether a server speaks the modern revision.
OUR_ID = "holdpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a frame is refused before it is looked at: the JSON-RPC error and its HTTP status."""

    code: int
    message: str
    data: Mapping[str, Any] | None = None
    status: int = 400


def era(headers: Mapping[str, str], frame: Frame | None) -> Era:
    """Return the era a request belongs to: modern when its body or its version header says so."""
    version = headers.get("mcp-protocol-version")
    return Era.MODERN if _version(frame) is not None or version in MODERN else Era.HANDSHAKE


def _version(frame: Frame | None) -> str | None:
    params = frame.params if isinstance(frame, Request | ToolCall | Notification) else {}
    meta = params.get("_meta")
    version = meta.get(META_VERSION) if isinstance(meta, dict) else None
    return version if isinstance(version, str) else None


def check_headers(pairs: Iterable[tuple[str, str]], frame: Frame) -> Rejection | None:
    """Return why the headers do not fit the body, or None. *pairs* are the headers in order, names in lower case."""
    given = [(name, value.strip()) for name, value in pairs if name.startswith("mcp-")]
    headers = dict(given)
    version = headers.get("mcp-protocol-version")
    if version is not None and version not in SUPPORTED:
        data = {"supported": list(SUPPORTED), "requested": version}
        return Rejection(
            code=UNSUPPORTED_VERSION, message=f"Protocol version {version} is not supported.", data=data
        )
    if era(headers, frame) is Era.HANDSHAKE:
        return None
    if len(headers) != len(given):
        return Rejection(code=HEADER_MISMATCH, message="An Mcp- header is given twice.")
    return _mismatch(headers, frame)


def _mismatch(headers: Mapping[str, str], frame: Frame) -> Rejection | None:
    wanted = {name.lower(): value for name, value in _values(frame).items()}
    for name, value in wanted.items():
        if name not in headers:
            return Rejection(code=HEADER_MISMATCH, message=f"The header {name} is missing.")
        if decoded(headers[name]) != value:
            return Rejection(code=HEADER_MISMATCH, message=f"The header {name} does not match the body.")
    return None


def _values(frame: Frame) -> Mapping[str, str]:
    """Return the header values that a frame of the modern revision asks for, not yet encoded."""
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
    """Return the headers that name a modern frame, made from its body; {} in the handshake era."""
    if _version(frame) is None:
        return {}
    return {name: encoded(value) for name, value in _values(frame).items()}


_PLAIN = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_SENTINEL = re.compile(r"=\?base64\?([A-Za-z0-9+/]*={0,2})\?=")


def encoded(value: str) -> str:
    """Return *value* as a header value: as it is when it is plain ASCII, else `=?base64?...?=`."""
    if _PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decoded(value: str) -> str | None:
    """Return what a header value stands for, or None when its encoding is not canonical."""
    match = _SENTINEL.fullmatch(value)
    if match is None:
        return value
    try:
        data = base64.b64decode(match[1], validate=True)
        return data.decode() if base64.b64encode(data).decode() == match[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def crossing(headers: Mapping[str, str], frame: Frame | None) -> Mapping[str, str]:
    """Return the headers that go on to the server: the protocol's own, those about the body made anew from it."""
    kept = {
        name: value for name, value in headers.items() if name in CROSSING or name.startswith(PARAM_HEADER)
    }
    return (
        kept
        if frame is None
        else kept | {name.lower(): value for name, value in routing_headers(frame).items()}
    )


def returning(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of a server's answer that come back to the client."""
    return {name: value for name, value in headers.items() if name.lower() in RETURNING}


def may_pass(frame: Frame, headers: Mapping[str, str]) -> bool:
    """Say whether a client may send this in its revision. Answers pass, where servers may ask."""
    match frame:
        case Response():
            return era(headers, frame) is Era.HANDSHAKE
        case Notification():
            return frame.method in NOTIFICATIONS
        case _:
            return frame.method in METHODS[era(headers, frame)]


def finishes_handshake(frame: Frame) -> bool:
    """Say whether this is the notification after which a handshake is done."""
    return isinstance(frame, Notification) and frame.method == "notifications/initialized"


def modern_meta(client: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the `_meta` of a request of the gateway's own."""
    return {META_VERSION: MODERN[0], META_CAPABILITIES: {}, META_CLIENT: client}


def modern_headers(method: str) -> Mapping[str, str]:
    """Return the headers of a request of the gateway's own."""
    return {"MCP-Protocol-Version": MODERN[0], "Mcp-Method": method}


CLIENT = {"name": "holdpoint", "version": "0.1.0"}
DISCOVER = msgspec.json.encode(
    {"jsonrpc": "2.0", "id": OUR_ID, "method": "server/discover", "params": {"_meta": modern_meta(CLIENT)}},
)
