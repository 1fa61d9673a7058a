"""An approved call to send: its frame, server, headers and session."""

from collections.abc import Mapping
from dataclasses import dataclass

from approvals.model import HeldCall
from gateway.call import envelope
from gateway.call.request import CallRequest
from gateway.hold.waiting_request import WaitingRequest
from gateway.upstreams import Upstream
from gateway.wire import frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """A call to send. The arguments are the stored ones; the id is that of the request in `frame`."""

    frame: frames.CallFrame
    upstream: Upstream
    headers: Mapping[str, str]
    #: The params of the initialize that opened the session, as JSON; b"" without a session.
    opening: bytes = b""


def as_sent(request: CallRequest) -> Outbound:
    """Return a call as its client sent it."""
    return Outbound(
        frame=request.frame, upstream=request.upstream, headers=request.headers, opening=request.opening
    )


def as_approved(request: WaitingRequest, held: HeldCall) -> Outbound:
    """Return *held* for a waiting client: in that client's exchange, with the approved params."""
    return Outbound(
        frame=envelope.approved_frame(held.call, request.id, request.members),
        upstream=request.upstream,
        headers=request.headers,
        opening=request.opening,
    )


def as_stored(held: HeldCall, upstream: Upstream) -> Outbound:
    """Return *held* without a waiting client, rebuilt from its stored envelope."""
    stored = envelope.unpack(held.call)
    opening = bytes(stored.opening)
    return Outbound(
        frame=envelope.rebuild_frame(held.call, held.id),
        upstream=upstream,
        headers=stored.headers,
        opening=b"" if opening == b"null" else opening,
    )
