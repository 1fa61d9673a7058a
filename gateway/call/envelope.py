"""What goes with the arguments when a held call is sent: kept with the call, for when its client is not there (PURE)."""

from collections.abc import Mapping

import msgspec

from approvals.model import ToolCall
from gateway.wire import frames

#: Members of params, and of `_meta`, that belong to one exchange and not to the call.
_OF_THE_EXCHANGE = frozenset({"_meta", "task"})
_META_OF_THE_EXCHANGE = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})
_PROTOCOL = "io.modelcontextprotocol/"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The other members of params, the protocol's headers, and the initialize that opened the session."""

    rest: dict[str, msgspec.Raw] = {}
    headers: dict[str, str] = {}
    opening: msgspec.Raw = msgspec.Raw(b"null")


def packed(frame: frames.CallFrame, headers: Mapping[str, str], opening: bytes) -> bytes:
    """Return the envelope of a call as bytes."""
    rest = {name: msgspec.Raw(raw) for name, raw in frame.rest.items() if name != "task"}
    return msgspec.json.encode(
        Envelope(rest=rest, headers=dict(headers), opening=msgspec.Raw(opening or b"null"))
    )


def unpacked(call: ToolCall) -> Envelope:
    """Return the envelope of a stored call."""
    return msgspec.json.decode(call.envelope or b"{}", type=Envelope)


def frame_of(call: ToolCall, request_id: frames.Id) -> frames.CallFrame:
    """Return the frame that a stored call goes out as when its client is not there to send one."""
    rest = {name: bytes(raw) for name, raw in unpacked(call).rest.items()}
    decoded = {name: msgspec.json.decode(raw) for name, raw in rest.items()}
    return frames.CallFrame(
        id=request_id,
        name=call.tool,
        arguments=call.arguments,
        params={**decoded, "name": call.tool, "arguments": msgspec.json.decode(call.arguments)},
        rest=rest,
        raw=b"",
    )


def more(frame: frames.CallFrame) -> bytes:
    """Return, as a JSON object, what beside its arguments makes a call another call: answers to a server's questions."""
    return msgspec.json.encode(
        {name: msgspec.Raw(raw) for name, raw in frame.rest.items() if name not in _OF_THE_EXCHANGE}
    )


def beside(frame: frames.CallFrame) -> bytes:
    """Return what of a call reaches the server beside its arguments, as a JSON object; b"" for nothing.

    What an agent says in `_meta` is part of it: a server may act on it, so people have to see it.
    """
    own = _own(frames.raw_members(frame.rest.get("_meta", b"{}")))
    members = {**frames.raw_members(more(frame)), **({"_meta": own} if own else {})}
    return msgspec.json.encode(members) if members else b""


def with_own_meta(frame: frames.CallFrame, call: ToolCall) -> frames.CallFrame:
    """Return the frame with what *call* says in `_meta`, beside what belongs to the frame's own exchange."""
    now = frames.raw_members(frame.rest.get("_meta", b"{}"))
    own = _own(now)
    said = _own(frames.raw_members(_beside(call).get("_meta", msgspec.Raw(b"{}"))))
    if own == said:
        return frame
    meta = {**{name: raw for name, raw in now.items() if name not in own}, **said}
    return with_rest(frame, {"_meta": msgspec.json.encode(meta) if meta else None})


def as_approved(frame: frames.CallFrame, call: ToolCall) -> frames.CallFrame:
    """Return the frame with everything that was shown of *call*: whoever asks again cannot send along something else."""
    request = {name: None for name in frame.rest if name not in _OF_THE_EXCHANGE}
    shown = {name: bytes(raw) for name, raw in _beside(call).items() if name != "_meta"}
    return with_rest(with_own_meta(frame, call), {**request, **shown})


def _beside(call: ToolCall) -> dict[str, msgspec.Raw]:
    return frames.raw_members(call.extra_params or b"{}")


def _own(meta: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {
        name: raw
        for name, raw in meta.items()
        if name not in _META_OF_THE_EXCHANGE and not name.startswith(_PROTOCOL)
    }


def with_rest(frame: frames.CallFrame, changes: Mapping[str, bytes | None]) -> frames.CallFrame:
    """Return the frame with other members of params; None takes one out."""
    rest = {name: raw for name, raw in {**frame.rest, **changes}.items() if raw is not None}
    kept = {
        name: value for name, value in frame.params.items() if name in rest or name in {"name", "arguments"}
    }
    decoded = {name: msgspec.json.decode(raw) for name, raw in changes.items() if raw is not None}
    return frames.CallFrame(
        id=frame.id,
        name=frame.name,
        arguments=frame.arguments,
        params={**kept, **decoded},
        rest=rest,
        raw=frame.raw,
    )
