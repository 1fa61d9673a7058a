"""Reads a server's reply to one request, up to the frame that answers it."""

from collections.abc import AsyncIterator, Callable

import msgspec

from approvals.model import Outcome
from gateway import frames, sse
from gateway.errors import CutError
from gateway.upstreams import JSON, Reply, whole


async def outcome_of(
    reply: Reply, request_id: frames.Id, show: Callable[[bytes], None], place: sse.Place | None = None
) -> Outcome:
    """Return the answer that carries *request_id*, whatever the HTTP status; *show* gets the other messages as events.

    Raises `CutError` when there is no such answer: it is then unknown whether the call ran.
    """
    try:
        async for data, raw in _frames_of(reply, place or sse.Place()):
            frame = frames.from_server(data)
            if (outcome := frames.outcome(frame, data, request_id)) is not None:
                return outcome
            if frames.is_message(frame):
                show(raw)
    except frames.FrameError as error:
        raise CutError("The server's answer could not be read.") from error
    finally:
        reply.close()
    if 300 <= reply.status < 500 and reply.status not in {400, 404} and not (place and place.id):
        return _refused(reply.status)
    raise CutError(f"The server answered HTTP {reply.status} without a result for this call.")


def _refused(status: int) -> Outcome:
    """A plain HTTP refusal: the server, or what stands before it, did not take the call."""
    error = {"code": -32603, "message": f"The server refused the call with HTTP {status}."}
    return Outcome(is_error=True, body=msgspec.json.encode(error))


async def _frames_of(reply: Reply, place: sse.Place) -> AsyncIterator[tuple[bytes, bytes]]:
    if not reply.streams:
        body = await whole(reply.chunks)
        if body.strip() and reply.media_type == JSON:
            yield body, sse.event(body)
        return
    async for event in sse.events(reply.chunks):
        place.reach(event)
        if event.data:
            yield event.data, event.raw
