"""An approved call on its way out: the frame, the server, and the headers and session it goes with."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from approvals.model import HeldCall
from gateway.call import envelope
from gateway.call.request import CallRequest
from gateway.upstreams import Upstream
from gateway.wire import frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """A call as it will be sent. The arguments are the stored ones; `frame` has the id that the answer goes to."""

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


def as_approved(request: CallRequest, held: HeldCall) -> Outbound:
    """Return *held* as it goes out for a client that waits: in its exchange, with the params that were approved."""
    return replace(as_sent(request), frame=envelope.with_approved_params(request.frame, held.call))


def as_stored(held: HeldCall, upstream: Upstream) -> Outbound:
    """Return *held* as it goes out without its client, from the envelope that was stored with it."""
    stored = envelope.unpack(held.call)
    opening = bytes(stored.opening)
    return Outbound(
        frame=envelope.rebuild_frame(held.call, held.id),
        upstream=upstream,
        headers=stored.headers,
        opening=b"" if opening == b"null" else opening,
    )
