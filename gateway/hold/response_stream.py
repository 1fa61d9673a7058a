"""The parts of the response to a held call: its final frame, and the event id that resumes its stream (PURE)."""

import base64
from dataclasses import dataclass

import msgspec

from approvals.model import CALL_ID_PREFIXES, CallId
from gateway.wire import frames


@dataclass(frozen=True, slots=True)
class FinalFrame:
    """The response frame, and its HTTP status if no event was sent before it."""

    frame: bytes
    status: int = 200


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
