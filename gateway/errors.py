"""Errors of the gateway. The docstring of each `GatewayError` is the default message that the agent reads."""

from collections.abc import Mapping
from typing import ClassVar


class UserError(Exception):
    """An error that the user can fix; the message is one plain sentence with the remedy."""


def first_error(error: BaseException) -> BaseException:
    """Return the first error of an exception group, or the error itself if it is not a group."""
    return first_error(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


class GatewayError(Exception):
    """The gateway could not handle this request."""

    #: The JSON-RPC error code, the HTTP status and the HTTP headers of the response.
    code: ClassVar[int] = -32603
    status: ClassVar[int] = 200
    headers: ClassVar[Mapping[str, str]] = {}

    #: The server's last line on stderr, for the log only; agents never see it.
    stderr: str = ""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class InternalError(GatewayError):
    """The gateway failed while handling this request; see its log. The request may or may not have been executed."""


class NotSentError(GatewayError):
    """The server could not be reached; nothing was sent to it."""


class ConnectionLostError(GatewayError):
    """The connection to the server broke after the request may have been sent."""


class ResponseTooLargeError(ConnectionLostError):
    """The server's response is larger than the gateway accepts."""


class UnknownSessionError(NotSentError):
    """Session not found."""

    code = -32001
    status = 404


class UnknownHoldError(GatewayError):
    """The gateway does not know this held call. It sent nothing now, but the call may have run before."""

    code = -32001
    status = 404


class UnknownServerError(NotSentError):
    """The gateway has no server of this name."""

    code = -32001
    status = 404


class UseInitializeError(NotSentError):
    """Bad Request: this server supports only protocol revisions with a handshake; send initialize first."""

    code = -32000
    status = 400


class BusyError(NotSentError):
    """This server has too many sessions open; try again later."""

    code = -32000
    status = 503


class StoppingError(NotSentError):
    """The gateway is stopping; try again in a few seconds."""

    code = -32000
    status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "5"}
