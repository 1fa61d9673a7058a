"""Reads a server's reply to one request, up to the response."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from approvals.model import Outcome
from gateway.errors import ConnectionLostError, GatewayError
from gateway.upstreams.reply import JSON, Reply, read_body
from gateway.wire import frames, protocol, sse

#: HTTP statuses that rule out a run: unauthorized, forbidden, wrong method, body or media type, wrong host
#: (RFC 9110, 15.5). Any other status may come from a proxy while the server runs the call.
REFUSALS = frozenset({401, 403, 405, 413, 415, 421})


class NoResultError(GatewayError):
    """The server refused a request of the gateway's own."""


async def read_result(reply: Reply) -> dict[str, Any]:
    """Return the result of one of the gateway's own requests; raises `NoResultError` or `ConnectionLostError`."""
    try:
        async for frame in _read_values(reply):
            if isinstance(frame, dict) and frame.get("id") == protocol.OUR_ID and "method" not in frame:
                if isinstance(result := frame.get("result"), dict):
                    return result
                break
    except frames.UNREADABLE as error:
        raise NoResultError from error
    finally:
        reply.close()
    raise NoResultError


async def _read_values(reply: Reply) -> AsyncIterator[Any]:
    if not reply.streams:
        yield msgspec.json.decode(await read_body(reply))
        return
    async for event in sse.split_events(reply.chunks):
        if event.data:
            yield msgspec.json.decode(event.data)
    raise ConnectionLostError


async def read_outcome(
    reply: Reply,
    request_id: frames.Id,
    on_event: Callable[[bytes], None],
    resume_point: sse.ResumePoint | None = None,
) -> Outcome:
    """Return the response to *request_id*, whatever the HTTP status; *on_event* gets the other messages as events.

    Without a response, a status in `REFUSALS` is an error outcome. Otherwise raises `ConnectionLostError`: the call may
    have run.
    """
    resume_point = resume_point or sse.ResumePoint()
    other_response = False
    try:
        async for data, raw in _read_frames(reply, resume_point):
            frame = frames.parse_server_frame(data)
            if (outcome := frames.parse_outcome(frame, data, request_id)) is not None:
                return outcome
            if frames.is_request_or_notification(frame):
                on_event(raw)
            elif frame.get("id") is not None:
                other_response = True
    except frames.FrameError as error:
        raise ConnectionLostError("The server's answer could not be read.") from error
    finally:
        reply.close()
    # The status of a resumed stream, or of a response to another request, says nothing about this call.
    if reply.status in REFUSALS and resume_point.id is None and not other_response:
        return _refusal_outcome(reply.status)
    raise ConnectionLostError(f"The server answered HTTP {reply.status} without a result for this call.")


def _refusal_outcome(status: int) -> Outcome:
    """Return the outcome of a plain HTTP refusal: the server, or a proxy before it, rejected the call."""
    error = {"code": -32603, "message": f"The server refused the call with HTTP {status}."}
    return Outcome(is_error=True, body=msgspec.json.encode(error))


async def _read_frames(reply: Reply, resume_point: sse.ResumePoint) -> AsyncIterator[tuple[bytes, bytes]]:
    if not reply.streams:
        body = await read_body(reply)
        if body.strip() and reply.media_type == JSON:
            yield body, sse.build_event(body)
        return
    async for event in sse.split_events(reply.chunks):
        resume_point.advance(event)
        if event.data:
            yield event.data, event.raw
