"""Sends the requester a link to the approval page, by URL elicitation (PURE).

Opening the link approves nothing. Clients of 2026-07-28 get it in an `input_required` result; clients of 2025-11-25
get it as a request on the open stream.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from approvals.model import HeldCall
from gateway.wire import frames, sse

#: The prefixes of the ids of the gateway's own requests to clients: the present one, and that of earlier versions.
ID_PREFIX = "okayed-"
ID_PREFIXES = (ID_PREFIX, "holdpoint-")


def url_request(call: HeldCall, url: str) -> Mapping[str, Any]:
    """Return an elicitation/create request in URL mode; *url* is the base URL of the inbox."""
    message = f"Approval {call.id} is needed. An approver decides on this page."
    params = {"mode": "url", "message": message, "url": f"{url.rstrip('/')}/calls/{call.id}"}
    return {"method": "elicitation/create", "params": params}


def request_event(call: HeldCall, url: str) -> bytes:
    """Return the same request as an event, for a stream of 2025-11-25."""
    request = url_request(call, url)
    params = {**request["params"], "elicitationId": call.id}
    frame = {"jsonrpc": "2.0", "id": ID_PREFIX + call.id, "method": request["method"], "params": params}
    return sse.build_event(msgspec.json.encode(frame))


def complete_event(call: HeldCall) -> bytes:
    """Return the event after which the client closes the link (2025-11-25, notifications/elicitation/complete)."""
    return sse.build_event(
        frames.build_notification("notifications/elicitation/complete", {"elicitationId": call.id})
    )


def is_response(frame: frames.Frame) -> bool:
    """Return whether a client answers one of these requests. The answer is dropped, since it decides nothing."""
    return isinstance(frame, frames.Response) and str(frame.id).startswith(ID_PREFIXES)
