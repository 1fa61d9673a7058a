"""The seam to MCP servers: one exchange of Streamable HTTP, in bytes and plain headers.

The gateway talks to every server as a Streamable HTTP client would: POST a frame, and get a reply with one JSON frame
or a stream of events; GET the server's own stream; DELETE a session. A stdio child is an `Upstream` that answers like
an HTTP server, so all four pairs of front and server share one path.
"""

from collections.abc import Mapping
from typing import Protocol

from gateway.upstreams.reply import Reply


class Upstream(Protocol):
    """A connection to one MCP server."""

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange: *verb* is POST, GET or DELETE; *headers* are MCP's own (Mcp-Session-Id ...).

        Raises `NotSentError` if no byte was sent, `ConnectionLostError` if some may have been. Reading `chunks` may
        raise `ConnectionLostError`.
        """

    def knows(self, headers: Mapping[str, str]) -> bool | None:
        """Return whether the session in *headers* exists; None if only the server knows."""

    async def close(self) -> None:
        """Close the connections and end the processes."""
