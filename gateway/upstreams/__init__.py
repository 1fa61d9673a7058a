"""The seam to MCP servers: one exchange of Streamable HTTP, in bytes and a mapping of headers.

The gateway talks to every server as a Streamable HTTP client would: POST a frame, and get a reply with one JSON frame
or a stream of events; GET the server's own stream; DELETE a session. A stdio child is an `Upstream` that answers like
an HTTP server, so all four pairs of front and server share one path.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.errors import GatewayError
from gateway.upstreams.reply import Reply

#: Receives the reply, or the error that `Upstream.send` would raise.
Receive = Callable[[Reply | GatewayError], None]


class Line(Protocol):
    """An idle connection to a server, reserved for one POST: it needs no task, since nothing waits."""

    def post(self, body: bytes, headers: Mapping[str, str], receive: Receive) -> None:
        """Send the POST, as `Upstream.send` would. *receive* is called once, in the event loop, maybe before this returns.

        A reply whose body arrives at once has it in `body`; any other body is read from `chunks`.
        """

    def release(self) -> None:
        """Give the unused connection back."""

    def abandon(self) -> None:
        """Cancel the exchange by closing the connection; *receive* is not called any more."""


class Upstream(Protocol):
    """A connection to one MCP server."""

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange: *verb* is POST, GET or DELETE; *headers* are MCP's own (Mcp-Session-Id ...).

        Raises `NotSentError` if no byte was sent, `ConnectionLostError` if some may have been. Reading `chunks` may
        raise `ConnectionLostError`.
        """

    def line(self) -> Line | None:
        """Reserve an idle connection; None if there is none, so that only `send` can wait for one."""

    def knows(self, headers: Mapping[str, str]) -> bool | None:
        """Return whether the session in *headers* exists; None if only the server knows."""

    async def close(self) -> None:
        """Close the connections and end the processes."""
