"""The five revisions of MCP as tables: eras, headers, which methods may pass, which status says what (PURE)."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from typing import Any

import msgspec

from approvals.model import Outcome
from gateway.wire.frames import CallFrame, Frame, Id, Notification, Request, Response

HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = ("2026-07-28",)
SUPPORTED = (*HANDSHAKE, *MODERN)

_PREFIX = "io.modelcontextprotocol/"
META_VERSION = f"{_PREFIX}protocolVersion"
META_CAPABILITIES = f"{_PREFIX}clientCapabilities"
META_CLIENT = f"{_PREFIX}clientInfo"
META_SERVER = f"{_PREFIX}serverInfo"
META_SUBSCRIPTION = f"{_PREFIX}subscriptionId"
#: The extension that the client declares, and the server offers, for tasks.
TASKS = f"{_PREFIX}tasks"

HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32020, -32021, -32022
#: The HTTP status that carries an error code in the revision of 2026-07-28; 200 for every other.
HTTP_STATUS: Mapping[int, int] = {
    -32700: 400, -32600: 400, -32602: 400, -32020: 400, -32021: 400, -32022: 400, -32601: 404,
}  # fmt: skip

#: The header that names a session of the handshake revisions.
SESSION_HEADER = "mcp-session-id"
#: Request headers that go on to a server, and response headers that come back. Credentials, cookies, hosts and
#: origins do neither; what is about the body is never taken from a client, but made from the body.
REQUEST_HEADERS = frozenset({SESSION_HEADER, "mcp-protocol-version", "last-event-id"})
RESPONSE_HEADERS = frozenset(
    {"content-type", SESSION_HEADER, "cache-control", "x-accel-buffering", "allow", "retry-after"}
)
PARAM_HEADER = "mcp-param-"
#: Says that a front of our own speaks for a client on stdio. It makes no headers from arguments, and resumes no stream of ours:
#: it asks for a held call again.
FRONT_HEADER = "okayed-front"
#: The id of a held call: such a front gets it as soon as its call is held, and sends it with the same call to ask for that one again.
HOLD_HEADER = "okayed-hold"
#: Says, on an error of the gateway's own, that nothing of the request reached the server. No server's header crosses under it.
UNSENT_HEADER = "okayed-unsent"

_BOTH_ERAS = {
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
    Era.HANDSHAKE: frozenset(_BOTH_ERAS | _HANDSHAKE_ONLY),
    Era.MODERN: frozenset(_BOTH_ERAS | _MODERN_ONLY),
}
NOTIFICATIONS = frozenset(_NOTIFICATIONS)
#: Methods whose frames name something in a header, and the member of params that names it.
NAMED_BY = {
    "tools/call": "name", "prompts/get": "name", "resources/read": "uri",
    "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId",
}  # fmt: skip

#: What a notification says whose sender has other tools, prompts or resources than before.
LIST_CHANGED = b"list_changed"
#: The id of the gateway's own requests, and its question whether a server speaks the modern revision.
OUR_ID = "okayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a frame is refused before it is looked at: the JSON-RPC error and its HTTP status."""

    code: int
    message: str
    data: Mapping[str, Any] | None = None
    status: int = 400


def era(headers: Mapping[str, str], frame: Frame | None) -> Era:
    """Return the era a request belongs to: modern when its body or its version header says so.

    A revision that is not known has no handshake that we know of, so it is judged by the stricter rules.
    """
    version = headers.get("mcp-protocol-version", HANDSHAKE[1])
    return Era.MODERN if _version(frame) is not None or version not in HANDSHAKE else Era.HANDSHAKE


def _version(frame: Frame | None) -> str | None:
    params = frame.params if isinstance(frame, Request | CallFrame | Notification) else {}
    meta = params.get("_meta")
    version = meta.get(META_VERSION) if isinstance(meta, dict) else None
    return version if isinstance(version, str) else None


def is_subscription(verb: str, headers: Mapping[str, str]) -> bool:
    """Say whether an exchange is there to listen for as long as its client likes, and asks for nothing that ends."""
    return verb == "GET" or headers.get("mcp-method") == "subscriptions/listen"


def check_headers(pairs: Iterable[tuple[str, str]], frame: Frame) -> Rejection | None:
    """Return why the headers do not fit the body, or None. *pairs* are the headers in order, names in lower case."""
    given = [(name, value.strip()) for name, value in pairs if name.startswith("mcp-")]
    headers = dict(given)
    version = headers.get("mcp-protocol-version")
    # What a server says to a revision that it does not know passes; a tool call of one cannot be judged.
    if version is not None and version not in SUPPORTED and isinstance(frame, CallFrame):
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
        if decode_header(headers[name]) != value:
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
    return {name: encode_header(value) for name, value in _values(frame).items()}


def declares_tasks(params: Mapping[str, Any]) -> bool:
    """Say whether the client of a modern request declares the tasks extension."""
    extensions = capabilities(params).get("extensions")
    return isinstance(extensions, dict) and TASKS in extensions


def server_name(result: Mapping[str, Any]) -> str:
    """Return the name a server gives itself in its answer to initialize or server/discover, or ""."""
    meta = result.get("_meta")
    info = result.get("serverInfo") or (meta.get(META_SERVER) if isinstance(meta, dict) else None)
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) else ""


def has_tasks(capabilities: Mapping[str, Any]) -> bool:
    """Say whether a server that declares *capabilities* has tasks of its own, of either dialect."""
    extensions = capabilities.get("extensions")
    return "tasks" in capabilities or (isinstance(extensions, dict) and TASKS in extensions)


def supports_url_elicitation(capabilities: Mapping[str, Any]) -> bool:
    """Say whether a client that declares *capabilities* shows a link when it is asked to (URL elicitation)."""
    elicitation = capabilities.get("elicitation")
    return isinstance(elicitation, dict) and isinstance(elicitation.get("url"), dict)


def capabilities(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the client of a modern request declares."""
    meta = params.get("_meta")
    declared = meta.get(META_CAPABILITIES) if isinstance(meta, dict) else None
    return declared if isinstance(declared, dict) else {}


def client_name(params: Mapping[str, Any]) -> str:
    """Return the name that the client of a modern request gives itself, or ""."""
    meta = params.get("_meta")
    info = meta.get(META_CLIENT) if isinstance(meta, dict) else None
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) else ""


_PLAIN = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_SENTINEL = re.compile(r"=\?base64\?([A-Za-z0-9+/]*={0,2})\?=")


def encode_header(value: str) -> str:
    """Return *value* as a header value: as it is when it is plain ASCII, else `=?base64?...?=`."""
    if _PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode_header(value: str) -> str | None:
    """Return what a header value stands for, or None when its encoding is not canonical."""
    match = _SENTINEL.fullmatch(value)
    if match is None:
        return value
    try:
        data = base64.b64decode(match[1], validate=True)
        return data.decode() if base64.b64encode(data).decode() == match[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def request_headers(headers: Mapping[str, str], frame: Frame | None) -> Mapping[str, str]:
    """Return the headers that go on to the server: of the client's the protocol's own, those about the body made anew from it."""
    kept = {name: value for name, value in headers.items() if name in REQUEST_HEADERS}
    if frame is None or era(headers, frame) is Era.HANDSHAKE:
        return kept
    return kept | {name.lower(): encode_header(value) for name, value in _values(frame).items()}


def response_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of a server's answer that come back to the client."""
    return {name: value for name, value in headers.items() if name.lower() in RESPONSE_HEADERS}


def is_allowed(frame: Frame, headers: Mapping[str, str]) -> bool:
    """Say whether a client may send this in its revision. Answers pass, where servers may ask."""
    match frame:
        case Response():
            return era(headers, frame) is Era.HANDSHAKE
        case Notification():
            return frame.method in NOTIFICATIONS
        case _:
            return frame.method in METHODS[era(headers, frame)]


def http_status(which: Era, outcome: Outcome) -> int:
    """Return the HTTP status of an answer of the server's, where it is the first that is sent."""
    if which is Era.HANDSHAKE or not outcome.is_error:
        return 200
    code = msgspec.json.decode(outcome.body).get("code")
    return HTTP_STATUS.get(code, 200)


def is_cancellation(frame: Frame) -> bool:
    """Say whether this is a notification that takes a request back."""
    return isinstance(frame, Notification) and frame.method == "notifications/cancelled"


def cancelled_id(frame: Frame) -> Id | None:
    """Return the id of the request that this notification takes back, or None when it does not."""
    if not (isinstance(frame, Notification) and is_cancellation(frame)):
        return None
    request_id = frame.params.get("requestId")
    # true is no id, though Python takes it for 1.
    return request_id if type(request_id) in {str, int} else None


def finishes_handshake(frame: Frame) -> bool:
    """Say whether this is the notification after which a handshake is done."""
    return isinstance(frame, Notification) and frame.method == "notifications/initialized"


def modern_headers(method: str) -> Mapping[str, str]:
    """Return the headers of a request of the gateway's own."""
    return {"MCP-Protocol-Version": MODERN[0], "Mcp-Method": method}


#: What the gateway says of itself as a client, and the `_meta` of its own requests in the modern revision.
CLIENT = {"name": "okayed", "version": metadata.version("okayed")}
OUR_META: Mapping[str, Any] = {META_VERSION: MODERN[0], META_CAPABILITIES: {}, META_CLIENT: CLIENT}
DISCOVER = msgspec.json.encode(
    {"jsonrpc": "2.0", "id": OUR_ID, "method": "server/discover", "params": {"_meta": OUR_META}},
)
