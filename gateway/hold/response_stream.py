"""How what comes while a client waits is written: as one JSON frame, or as a stream of events that it can take up again."""

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
    """The frame that answers the request, and the HTTP status that goes with it if it is the first that is sent."""

    frame: bytes
    status: int = 200


#: What a client that waits is given: events as they come, and the answer at the end.
StreamItems = AsyncGenerator["bytes | FinalFrame", None]


async def write_events(
    first: "bytes | FinalFrame | None", items: StreamItems, handle: str | None
) -> AsyncIterator[bytes]:
    """Write what comes as events. With a handle the client can come back, and does when the server wants it to."""
    if handle is not None:
        yield sse.priming_event(handle, ladder.RETRY)
    async for item in _chain_items(first, items):
        if item != HANG_UP:
            yield sse.event(item.frame) if isinstance(item, FinalFrame) else item
        elif handle is not None:
            return


async def write_frame(first: "bytes | FinalFrame", items: StreamItems) -> AsyncIterator[bytes]:
    """Write the answer alone, as one JSON frame."""
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


def event_id_of(call: CallId, request_id: frames.Id) -> str:
    """Return the event id by which a client takes up a stream: the call, and the request that it answers."""
    return f"{call}.{base64.urlsafe_b64encode(msgspec.json.encode(request_id)).decode()}"


def parse_event_id(event_id: str) -> tuple[CallId, frames.Id] | None:
    """Return what an event id of ours stands for; None when it is a server's."""
    call, _, coded = event_id.partition(".")
    if not call.startswith(CALL_ID_PREFIXES):
        return None
    try:
        return CallId(call), msgspec.json.decode(base64.urlsafe_b64decode(coded), type=str | int)
    except (ValueError, msgspec.MsgspecError):
        return None
