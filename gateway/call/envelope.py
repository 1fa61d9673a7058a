"""The envelope of a call: the headers and the other params that are stored and forwarded with it (PURE)."""

from collections.abc import Iterable, Mapping

import msgspec

from approvals.model import ToolCall
from gateway.wire import frames

#: Members of params, and of `_meta`, that belong to one exchange and not to the call.
_EXCHANGE_PARAMS = frozenset({"_meta", "task"})
_EXCHANGE_META = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})
_PROTOCOL_PREFIX = "io.modelcontextprotocol/"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The other members of params, the protocol's headers, and the params of the initialize that opened the session."""

    rest: dict[str, msgspec.Raw] = {}
    headers: dict[str, str] = {}
    opening: msgspec.Raw = msgspec.Raw(b"null")


def pack(frame: frames.CallFrame, headers: Mapping[str, str], opening: bytes) -> bytes:
    """Return the envelope of a call as JSON."""
    rest = {name: msgspec.Raw(raw) for name, raw in frame.rest.items() if name != "task"}
    return msgspec.json.encode(
        Envelope(rest=rest, headers=dict(headers), opening=msgspec.Raw(opening or b"null"))
    )


def unpack(call: ToolCall) -> Envelope:
    """Return the envelope of a stored call."""
    return msgspec.json.decode(call.envelope or b"{}", type=Envelope)


def rebuild_frame(call: ToolCall, request_id: frames.Id) -> frames.CallFrame:
    """Rebuild the frame of a stored call from its envelope, under a new id."""
    rest = {name: bytes(raw) for name, raw in unpack(call).rest.items()}
    decoded = {name: msgspec.json.decode(raw) for name, raw in rest.items()}
    return frames.CallFrame(
        id=request_id,
        name=call.tool,
        arguments=call.arguments,
        params={**decoded, "name": call.tool, "arguments": msgspec.json.decode(call.arguments)},
        rest=rest,
        raw=b"",
    )


def continuation_params(frame: frames.CallFrame) -> bytes:
    """Return the params that make a call other than a repeat: the answers to a server's questions, as JSON."""
    return msgspec.json.encode(_continuation_params(frame))


def extra_params(frame: frames.CallFrame) -> bytes:
    """Return the other params that will be forwarded, as a JSON object; b"" if there are none.

    They include the agent's own `_meta`: a server may act on it, so approvers see it.
    """
    own = _own_meta(frames.raw_members(frame.rest.get("_meta", b"{}")))
    members = {**_continuation_params(frame), **({"_meta": own} if own else {})}
    return msgspec.json.encode(members) if members else b""


def with_approved_meta(frame: frames.CallFrame, call: ToolCall) -> frames.CallFrame:
    """Replace the agent's own `_meta` with that of *call*; the members of the frame's exchange stay."""
    sent = frames.raw_members(frame.rest.get("_meta", b"{}"))
    own = _own_meta(sent)
    approved = _own_meta(frames.raw_members(_extra(call).get("_meta", msgspec.Raw(b"{}"))))
    if own == approved:
        return frame
    meta = {**{name: raw for name, raw in sent.items() if name not in own}, **approved}
    return with_params(frame, {"_meta": msgspec.json.encode(meta) if meta else None})


def with_approved_params(frame: frames.CallFrame, call: ToolCall) -> frames.CallFrame:
    """Replace the params with the approved ones; a re-issued request cannot add members."""
    dropped = {name: None for name in frame.rest if name not in _EXCHANGE_PARAMS}
    approved = {name: bytes(raw) for name, raw in _extra(call).items() if name != "_meta"}
    return with_params(with_approved_meta(frame, call), {**dropped, **approved})


def exchange_members(frame: frames.CallFrame) -> tuple[tuple[str, bytes], ...]:
    """Return the members of params that belong to the frame's exchange, not to the call, as their exact bytes."""
    return tuple((name, raw) for name, raw in frame.rest.items() if name in _EXCHANGE_PARAMS)


def approved_frame(
    call: ToolCall, request_id: frames.Id, members: Iterable[tuple[str, bytes]]
) -> frames.CallFrame:
    """Build the frame of an approved call in the exchange of a waiting request, from its `exchange_members`."""
    rest = dict(members)
    decoded = {name: msgspec.json.decode(raw) for name, raw in rest.items()}
    params = {**decoded, "name": call.tool, "arguments": msgspec.json.decode(call.arguments)}
    frame = frames.CallFrame(
        id=request_id, name=call.tool, arguments=call.arguments, params=params, rest=rest, raw=b""
    )
    return with_approved_params(frame, call)


def with_params(frame: frames.CallFrame, changes: Mapping[str, bytes | None]) -> frames.CallFrame:
    """Return the frame with other members of params, as JSON; None removes a member."""
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


def _continuation_params(frame: frames.CallFrame) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(raw) for name, raw in frame.rest.items() if name not in _EXCHANGE_PARAMS}


def _extra(call: ToolCall) -> dict[str, msgspec.Raw]:
    return frames.raw_members(call.extra_params or b"{}")


def _own_meta(meta: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """Return the members of `_meta` that are the agent's own, not the exchange's or the protocol's."""
    return {
        name: raw
        for name, raw in meta.items()
        if name not in _EXCHANGE_META and not name.startswith(_PROTOCOL_PREFIX)
    }
