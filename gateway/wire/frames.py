"""Parses and builds JSON-RPC frames; every transport uses this one strict parser (PURE).

Two parsers must never read one frame differently. Ambiguous frames are therefore refused: repeated members,
misspelt envelope members, encodings other than UTF-8, numbers that overflow, batches. The arguments of a tool call
are forwarded as the exact bytes received.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, NoReturn

import msgspec

from approvals.model import Outcome
from gateway.wire import plain_calls

Id = str | int

#: Limits of one frame: bytes from a client, bytes from a server, nesting depth, members in all its objects.
MAX_BYTES = 4 << 20
MAX_SERVER_BYTES = 16 << 20
MAX_DEPTH = 64
MAX_MEMBERS = 50_000
#: A valid tool name; calls of any other name are denied (MCP, server/tools, "Tool Names").
TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")

#: Error codes (JSON-RPC 2.0, section 5.1).
PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS = -32700, -32600, -32602
#: The members allowed in a message, and in the params of a tools/call.
ENVELOPE = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
CALL = frozenset({"name", "arguments", "_meta", "task", "inputResponses", "requestState"})
#: Members of params that decide where a request goes; members that resemble one of these are refused.
ROUTING = CALL | {"uri", "taskId"}

_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MEMBER = re.compile(rb'"\s*:')
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class FrameError(Exception):
    """The frame is refused and must not be forwarded: JSON-RPC code, message, and request id if known."""

    def __init__(self, code: int, message: str, request_id: Id | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = request_id


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request other than tools/call. `raw` is the frame as received."""

    id: Id
    method: str
    params: Mapping[str, Any] = {}
    raw: bytes


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """A notification from a client. `raw` is the frame as received."""

    method: str
    params: Mapping[str, Any] = {}
    raw: bytes


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A client's response to a server's request."""

    id: Id
    raw: bytes


class CallFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A tools/call. `arguments` and `rest` hold the exact bytes of arguments and of the other params."""

    id: Id
    name: str
    arguments: bytes
    params: Mapping[str, Any]
    rest: Mapping[str, bytes]
    raw: bytes

    @property
    def method(self) -> str:
        """The method, always tools/call."""
        return "tools/call"

    @property
    def progress_token(self) -> Id | None:
        """The progressToken of the request, or None."""
        meta = self.params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        return token if isinstance(token, str | int) and not isinstance(token, bool) else None


Frame = Request | Notification | Response | CallFrame


def parse_json(data: bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """Decode an unambiguous JSON text; raises `FrameError`."""
    if len(data) > max_bytes:
        raise FrameError(INVALID_REQUEST, f"The message is longer than {max_bytes} bytes.")
    if _may_exceed_members(data) and len(_MEMBER.findall(data)) > MAX_MEMBERS:
        raise FrameError(INVALID_REQUEST, f"The message has more than {MAX_MEMBERS} members.")
    try:
        text = data.decode("utf-8")
        value = _strict_decoder.decode(text)
    except UnicodeDecodeError as error:
        raise FrameError(PARSE_ERROR, "The message is not UTF-8.") from error
    except RecursionError as error:
        raise FrameError(INVALID_REQUEST, _TOO_DEEP) from error
    except ValueError as error:
        raise FrameError(PARSE_ERROR, f"The message is not JSON: {_describe(error)}.") from error
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise FrameError(INVALID_REQUEST, _TOO_DEEP)
    if _SURROGATE.search(text) and not _encodable(value):
        raise FrameError(PARSE_ERROR, "The message has an unpaired surrogate.")
    return value


def _may_exceed_members(data: bytes) -> bool:
    """Return whether a JSON text may have more than MAX_MEMBERS members. Each takes at least four bytes: `"":0`."""
    return len(data) > 4 * MAX_MEMBERS and data.count(b":") > MAX_MEMBERS


_TOO_DEEP = f"The message is nested deeper than {MAX_DEPTH} levels."


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise FrameError(INVALID_REQUEST, "The message repeats a member in an object.")
    return members


def _parse_float(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise FrameError(PARSE_ERROR, "The message has a number out of range.")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise FrameError(PARSE_ERROR, f"The message has {name}, which is not JSON.")


_strict_decoder = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_float=_parse_float, parse_constant=_refuse_constant
)


def _describe(error: ValueError) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else "a number is too long"


def _depth(value: Any) -> int:
    """Return the nesting depth of a value, without recursion."""
    depth, level = 0, [value]
    while level := [item for container in level for item in _containers(container)]:
        depth += 1
    return depth + 1


def _containers(value: Any) -> Iterator[Any]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (item for item in inside if isinstance(item, dict | list))


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def decode(data: bytes, *, max_bytes: int = MAX_BYTES) -> Frame:
    """Decode a client's frame; raises `FrameError`."""
    if len(data) <= max_bytes and (call := _decode_plain_call(data)) is not None:
        return call
    return decode_strictly(data, max_bytes=max_bytes)


def decode_strictly(data: bytes, *, max_bytes: int = MAX_BYTES) -> Frame:
    """Decode a client's frame with the strict parser only; raises `FrameError`."""
    value = parse_json(data, max_bytes=max_bytes)
    if not isinstance(value, dict):
        kind = "Batches are not supported" if isinstance(value, list) else "The message must be an object"
        raise FrameError(INVALID_REQUEST, f"{kind}.")
    request_id = value.get("id")
    if "id" in value and not _is_id(request_id):
        raise FrameError(INVALID_REQUEST, "The id must be a string or an integer.")
    try:
        return _parse_envelope(value, data)
    except FrameError as error:
        error.id = request_id
        raise


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _parse_envelope(value: dict[str, Any], data: bytes) -> Frame:
    _refuse_unknown(value, ENVELOPE, "message")
    if value.get("jsonrpc") != "2.0":
        raise FrameError(INVALID_REQUEST, 'The message must have "jsonrpc": "2.0".')
    if "method" not in value:
        return _parse_response(value, data)
    if "result" in value or "error" in value:
        raise FrameError(INVALID_REQUEST, "A message cannot be both a request and a response.")
    method, params = value["method"], value.get("params", {})
    if not isinstance(method, str):
        raise FrameError(INVALID_REQUEST, "The method must be a string.")
    if not isinstance(params, dict):
        raise FrameError(INVALID_REQUEST, "The params must be an object.")
    if not isinstance(params.get("_meta", {}), dict):
        raise FrameError(INVALID_PARAMS, "The _meta of params must be an object.")
    _refuse_look_alikes(params, ROUTING, "params")
    if method == "tools/call":
        return _parse_call(value, params, data)
    if "id" not in value:
        return Notification(method=method, params=params, raw=data)
    return Request(id=value["id"], method=method, params=params, raw=data)


def _parse_response(value: dict[str, Any], data: bytes) -> Response:
    if "id" not in value or ("result" in value) == ("error" in value) or "params" in value:
        raise FrameError(INVALID_REQUEST, "The message is neither a request nor a response.")
    return Response(id=value["id"], raw=data)


def _parse_call(value: dict[str, Any], params: dict[str, Any], data: bytes) -> CallFrame:
    if "id" not in value:
        raise FrameError(INVALID_REQUEST, "A tools/call needs an id.")
    _refuse_unknown(params, CALL, "params of a tools/call")
    if not isinstance(params.get("name"), str):
        raise FrameError(INVALID_PARAMS, "A tools/call needs a tool name.")
    if not isinstance(params.get("arguments", {}), dict):
        raise FrameError(INVALID_PARAMS, "The arguments of a tools/call must be an object.")
    rest = {name: bytes(raw) for name, raw in raw_members(bytes(raw_members(data)["params"])).items()}
    rest.pop("name")
    arguments = rest.pop("arguments", b"{}")
    return CallFrame(
        id=value["id"], name=params["name"], arguments=arguments, params=params, rest=rest, raw=data
    )


def _decode_plain_call(data: bytes) -> CallFrame | None:
    """Decode a tools/call without unusual members; None leaves the frame to the strict parser."""
    if _may_exceed_members(data) or (call := plain_calls.decode(data, MAX_DEPTH)) is None:
        return None
    return CallFrame(
        id=call.id, name=call.name, arguments=call.arguments, params=call.params, rest=call.rest, raw=data
    )


def _refuse_unknown(value: Mapping[str, Any], allowed: frozenset[str], where: str) -> None:
    if unknown := [name for name in value if name not in allowed]:
        raise FrameError(INVALID_REQUEST, f"The {where} has an unknown member {json.dumps(unknown[0])}.")


def _refuse_look_alikes(value: Mapping[str, Any], names: frozenset[str], where: str) -> None:
    """Refuse members that a case- or Unicode-folding parser would read as one of *names* (CVE-2026-27896)."""
    for name in value:
        if name not in names and fold_member_name(name) in _FOLDED:
            raise FrameError(
                INVALID_REQUEST, f"The {where} has a member {json.dumps(name)} that looks like another."
            )


def fold_member_name(name: str) -> str:
    """Return *name* as a lenient parser might read it: case-folded, NFKC-normalized, without NUL."""
    return unicodedata.normalize("NFKC", name.replace("\0", "")).casefold()


_FOLDED = frozenset(fold_member_name(name) for name in ROUTING)


#: The exceptions of decoding a server's JSON.
UNREADABLE = plain_calls.UNREADABLE


def raw_members(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of a JSON object, each as its exact bytes; raises one of `UNREADABLE`."""
    return _object_decoder.decode(data)


def rebuild(call: CallFrame, *, arguments: bytes | None = None) -> bytes:
    """Rebuild the frame of *call* around the exact bytes of its arguments, or around *arguments*."""
    rest = b""
    for name, raw in call.rest.items():
        rest += b",%b:%b" % (_encode(name), raw)
    sent = call.arguments if arguments is None else arguments
    return _CALL % (_encode(call.id), _encode(call.name), sent, rest)


_CALL = b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":{"name":%b,"arguments":%b%b}}'
_encode = msgspec.json.Encoder().encode


def request_id_of(frame: Frame | None) -> Id | None:
    """Return the id of a request, None for a notification, a response or no frame."""
    return frame.id if isinstance(frame, Request | CallFrame) else None


def build_result(request_id: Id, value: Mapping[str, Any]) -> bytes:
    """Build a response with a result."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "result": value})


def build_error(request_id: Id | None, code: int, message: str, data: Any = None) -> bytes:
    """Build a response with an error."""
    body = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": body})


def build_notification(method: str, params: Mapping[str, Any]) -> bytes:
    """Build a notification."""
    return msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params})


def build_response(request_id: Id, outcome: Outcome) -> bytes:
    """Build a response with a server's result or error, unchanged."""
    member = "error" if outcome.is_error else "result"
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, member: msgspec.Raw(outcome.body)})


def parse_server_frame(data: bytes) -> Mapping[str, Any]:
    """Decode a server's frame, {} if it is not an object; raises `FrameError`."""
    value = parse_json(data, max_bytes=MAX_SERVER_BYTES)
    return value if isinstance(value, dict) else {}


def parse_outcome(frame: Mapping[str, Any], data: bytes, request_id: Id) -> Outcome | None:
    """Return the outcome of *request_id* if *frame*, decoded from *data*, is its response; else None.

    Ids of different types differ. Raises `FrameError` if the result or error is not an object (MCP, "Responses").
    """
    if is_request_or_notification(frame) or not _is_same_id(frame.get("id"), request_id):
        return None
    if ("result" in frame) == ("error" in frame):
        return None
    member = "error" if "error" in frame else "result"
    if not isinstance(frame[member], dict):
        raise FrameError(INVALID_REQUEST, f"The {member} of a response must be an object.")
    return Outcome(is_error=member == "error", body=bytes(raw_members(data)[member]))


def _is_same_id(value: Any, request_id: Id) -> bool:
    return type(value) is type(request_id) and bool(value == request_id)


def is_request_or_notification(frame: Mapping[str, Any]) -> bool:
    """Return whether a server's frame is a request or a notification."""
    return "method" in frame
