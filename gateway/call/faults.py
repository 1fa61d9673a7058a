"""Replies for exchanges that failed."""

from approvals.errors import StoreError
from gateway.errors import GatewayError, NotSentError
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, protocol


def build_reply(frame: frames.Frame | None, error: GatewayError | StoreError) -> Reply:
    """Return the JSON-RPC error for the client, with the id of its request."""
    fault = (
        GatewayError(f"{error} Nothing was executed for this request.")
        if isinstance(error, StoreError)
        else error
    )
    body = frames.build_error(frames.request_id_of(frame), fault.code, str(fault))
    unsent = {protocol.UNSENT_HEADER: "1"} if isinstance(fault, NotSentError) else {}
    return frame_reply(body, status=fault.status, headers={**fault.headers, **unsent})
