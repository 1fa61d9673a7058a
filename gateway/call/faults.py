"""Replies for exchanges that failed."""

import logging

from approvals.errors import StoreError
from gateway.errors import GatewayError, InternalError, NotSentError
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, protocol

log = logging.getLogger("okayed.proxy")


def build_reply(frame: frames.Frame | None, error: Exception) -> Reply:
    """Return the JSON-RPC error for the client, with the id of its request; logs an unexpected *error*."""
    fault = _as_gateway_error(error)
    body = frames.build_error(frames.request_id_of(frame), fault.code, str(fault))
    unsent = {protocol.UNSENT_HEADER: "1"} if isinstance(fault, NotSentError) else {}
    return frame_reply(body, status=fault.status, headers={**fault.headers, **unsent})


def _as_gateway_error(error: Exception) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, StoreError):
        return GatewayError(f"{error} Nothing was executed for this request.")
    log.error("an exchange failed", exc_info=error)
    return InternalError()
