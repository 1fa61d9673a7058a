"""Writes the response to a held call: one JSON frame, or an event stream that the client can resume."""

import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from approvals.model import CALL_ID_PREFIXES, CallId
from gateway.hold import ladder
from gateway.hold.running import HANG_UP
from gateway.wire import frames, sse


@dataclass(frozen=True, slots=True)
class FinalFrame:
    """The response frame, and its HTTP status if no event was sent before it."""

    frame: bytes
    status: int = 200


#: Events as they arrive, then the response.
StreamItems = AsyncGenerator["bytes | FinalFrame", None]


async def write_events(
    first: "bytes | FinalFrame | None", items: StreamItems, event_id: str | None
) -> AsyncIterator[bytes]:
    """Write the items as events. With an *event_id* the client can resume the stream, even if the server hangs up."""
    if event_id is not None:
        yield sse.build_priming_event(event_id, ladder.RECONNECT_MS)
    async for item in _chain_items(first, items):
        if item != HANG_UP:
            yield sse.build_event(item.frame) if isinstance(item, FinalFrame) else item
        elif event_id is not None:
            return


async def write_frame(first: "bytes | FinalFrame", items: StreamItems) -> AsyncIterator[bytes]:
    """Write only the response, as one JSON frame."""
    async for item in _chain_items(first, items):
        if isinstance(item, FinalFrame):
            yield item.frame


async def _chain_items(
    first: "bytes | FinalFrame | None", items: StreamItems
) -> AsyncIterator["bytes | FinalFrame"]:
    async with aclosing(items):
        if first is not None:
            yield first
        async for item in items:
            yield item


def make_event_id(call: CallId, request_id: frames.Id) -> str:
    """Return the event id that resumes a stream: the id of the held call, and the request id."""
    return f"{call}.{base64.urlsafe_b64encode(msgspec.json.encode(request_id)).decode()}"


def parse_event_id(event_id: str) -> tuple[CallId, frames.Id] | None:
    """Return the call id and the request id in an event id; None for a server's event id."""
    call, _, coded = event_id.partition(".")
    if not call.startswith(CALL_ID_PREFIXES):
        return None
    try:
        return CallId(call), msgspec.json.decode(base64.urlsafe_b64decode(coded), type=str | int)
    except (ValueError, msgspec.MsgspecError):
        return None
