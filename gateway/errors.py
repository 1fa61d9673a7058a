"""What can go wrong between an agent and a server. Each class's docstring is its default message."""

from collections.abc import Mapping
from typing import ClassVar


class UserError(Exception):
    """Something that whoever runs the command can mend; the message is one plain sentence with the remedy."""


def first_error(error: BaseException) -> BaseException:
    """Return the first of several faults that ended a group of tasks; an error that is no group is returned as it is."""
    return first_error(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


class GatewayError(Exception):
    """The gateway could not handle this request."""

    #: The JSON-RPC error code, the HTTP status and the HTTP headers that tell it on the wire.
    code: ClassVar[int] = -32603
    status: ClassVar[int] = 200
    headers: ClassVar[Mapping[str, str]] = {}

    #: The server's last line on stderr, for the operator. Agents never see it.
    stderr: str = ""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class InternalError(GatewayError):
    """The gateway failed on this request, and its log says why. It is not known whether it was carried out."""


class NotSentError(GatewayError):
    """The server could not be reached; nothing was sent to it."""


class CutError(GatewayError):
    """The connection to the server broke after the request may have been sent."""


class ResponseTooLargeError(CutError):
    """The server's answer is longer than the gateway takes."""


class UnknownSessionError(NotSentError):
    """Session not found."""

    code = -32001
    status = 404


class UnknownHoldError(GatewayError):
    """The gateway does not know this held call, so nothing was sent now. It is not known whether the call ran before."""

    code = -32001
    status = 404


class UnknownServerError(NotSentError):
    """There is no server of this name here."""

    code = -32001
    status = 404


class UseInitializeError(NotSentError):
    """Bad Request: this server speaks the handshake revisions only; use initialize."""

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
