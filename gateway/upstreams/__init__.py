"""The seam to MCP servers: one exchange of Streamable HTTP, in bytes and plain headers.

Whatever a server speaks, the gateway talks to it as a Streamable HTTP client would: POST a frame and get a reply
that is one JSON frame or a stream of events; GET the server's own stream; DELETE a session. A stdio child is an
`Upstream` that answers like an HTTP server, so all four pairs of front and server share one path.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from gateway.errors import TooLongError

JSON = "application/json"
EVENTS = "text/event-stream"
#: The longest JSON answer that is read whole, in bytes.
MAX_ANSWER = 16 << 20


def _leave() -> None:
    """Leave things as they are."""


async def _noted() -> None:
    """Note nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A server's answer to one exchange."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The bytes of the body. Reading may raise `CutError`.
    chunks: AsyncIterator[bytes] = field(default_factory=lambda: _once(b""))
    #: Lets go of the exchange; to be called in the end, whether or not the body was read.
    close: Callable[[], None] = _leave
    #: To be awaited when the last byte of the body was written to the client.
    delivered: Callable[[], Awaitable[None]] = _noted

    @property
    def streams(self) -> bool:
        """Whether the body is a stream of events."""
        return self.media_type == EVENTS

    @property
    def media_type(self) -> str:
        """The media type without parameters, in lower case."""
        return self.header("content-type").partition(";")[0].strip().lower()

    def header(self, name: str) -> str:
        """Return a header by its lower-case name, or ""."""
        return next((value for key, value in self.headers.items() if key.lower() == name), "")


class Upstream(Protocol):
    """A connection to one MCP server."""

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange: *verb* is POST, GET or DELETE; *headers* are the protocol's (Mcp-Session-Id ...).

        Raises `NotSentError` when not one byte left, `CutError` when it may have; `chunks` may raise `CutError` too.
        """

    def knows(self, headers: Mapping[str, str]) -> bool | None:
        """Say whether the session of *headers* is there; None when only the server can say."""

    async def close(self) -> None:
        """End what runs and let go of connections and processes."""


def frame_reply(frame: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a reply whose body is one JSON frame."""
    return Reply(status=status, headers={"Content-Type": JSON, **(headers or {})}, chunks=_once(frame))


async def _once(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def with_body(reply: Reply, body: bytes) -> Reply:
    """Return *reply* with another body."""
    return replace(reply, chunks=_once(body))


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    """Read a body to its end."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_ANSWER:
            raise TooLongError
        parts.append(chunk)
    return b"".join(parts)
