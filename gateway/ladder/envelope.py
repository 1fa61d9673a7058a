"""What goes with the arguments when a held call is sent: kept with the call, for when its client is not there (PURE)."""

from collections.abc import Mapping

import msgspec

from approvals.model import ToolCall
from gateway import frames

#: Members of params that belong to one exchange, not to the call.
_OF_THE_EXCHANGE = frozenset({"_meta", "task"})


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The other members of params, the protocol's headers, and the initialize that opened the session."""

    rest: dict[str, msgspec.Raw] = {}
    headers: dict[str, str] = {}
    opening: msgspec.Raw = msgspec.Raw(b"null")


def packed(frame: frames.ToolCall, headers: Mapping[str, str], opening: bytes) -> bytes:
    """Return the envelope of a call as bytes."""
    rest = {name: msgspec.Raw(raw) for name, raw in frame.rest.items() if name != "task"}
    return msgspec.json.encode(
        Envelope(rest=rest, headers=dict(headers), opening=msgspec.Raw(opening or b"null"))
    )


def unpacked(call: ToolCall) -> Envelope:
    """Return the envelope of a stored call."""
    return msgspec.json.decode(call.along or b"{}", type=Envelope)


def frame_of(call: ToolCall, request_id: frames.Id) -> frames.ToolCall:
    """Return the frame that a stored call goes out as when its client is not there to send one."""
    rest = {name: bytes(raw) for name, raw in unpacked(call).rest.items()}
    decoded = {name: msgspec.json.decode(raw) for name, raw in rest.items()}
    return frames.ToolCall(
        id=request_id,
        name=call.tool,
        arguments=call.arguments,
        params={**decoded, "name": call.tool, "arguments": msgspec.json.decode(call.arguments)},
        rest=rest,
        raw=b"",
    )


def more(frame: frames.ToolCall) -> bytes:
    """Return, as a JSON object, what beside its arguments makes a call another call: answers to a server's questions."""
    return msgspec.json.encode(
        {name: msgspec.Raw(raw) for name, raw in frame.rest.items() if name not in _OF_THE_EXCHANGE}
    )


def with_rest(frame: frames.ToolCall, changes: Mapping[str, bytes | None]) -> frames.ToolCall:
    """Return the frame with other members of params; None takes one out."""
    rest = {name: raw for name, raw in {**frame.rest, **changes}.items() if raw is not None}
    kept = {
        name: value for name, value in frame.params.items() if name in rest or name in {"name", "arguments"}
    }
    decoded = {name: msgspec.json.decode(raw) for name, raw in changes.items() if raw is not None}
    return frames.ToolCall(
        id=frame.id,
        name=frame.name,
        arguments=frame.arguments,
        params={**kept, **decoded},
        rest=rest,
        raw=frame.raw,
    )
