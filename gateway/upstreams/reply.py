"""A server's reply to one exchange: status, headers, and one JSON frame or a stream of events as its body."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Protocol, runtime_checkable

import msgspec
from msgspec.structs import replace

from gateway.errors import ResponseTooLargeError

JSON = "application/json"
EVENTS = "text/event-stream"
#: The longest JSON answer that is read into memory, in bytes.
MAX_ANSWER = 16 << 20


def _do_nothing() -> None:
    """Nothing to release."""


async def note_nothing() -> None:
    """Nothing to record: the default of `Reply.delivered`."""


class _Nothing:
    """An empty body. All replies share one object; a generator would have to be created for each."""

    def __aiter__(self) -> "_Nothing":
        """Iterate over nothing."""
        return self

    async def __anext__(self) -> bytes:
        """End at once."""
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Do nothing. Readers close every body, since most are generators."""


NOTHING = _Nothing()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A server's reply to one exchange."""

    status: int
    headers: Mapping[str, str] = {}
    #: The whole body if it is in memory; else None, and `chunks` has it.
    body: bytes | None = None
    #: The body as it arrives. Reading it may raise `ConnectionLostError`.
    chunks: AsyncIterator[bytes] = NOTHING
    #: Releases the exchange. The reader calls it at the end, whether or not it read the body.
    close: Callable[[], None] = _do_nothing
    #: Awaited after the last byte of the body was written to the client.
    delivered: Callable[[], Awaitable[None]] = note_nothing

    @property
    def streams(self) -> bool:
        """Whether the body is a stream of events."""
        return self.media_type == EVENTS

    @property
    def media_type(self) -> str:
        """The media type without parameters, in lower case."""
        return media_type(self.header("content-type"))

    def header(self, name: str) -> str:
        """Return a header by its lower-case name, or ""."""
        if (found := self.headers.get(name)) is not None:
            return found
        return next((value for key, value in self.headers.items() if key.lower() == name), "")


@runtime_checkable
class Parkable(Protocol):
    """A reply or a body that needs no reader, and so no task, while it waits for a person.

    A front parks it before each read. If `park` returns True, the front's task ends, and `resume` starts another one.
    """

    def park(self, write: Callable[[bytes], None], resume: Callable[[], None]) -> bool:
        """Wait without a reader; False if the reader has to read now.

        While parked, signs of life go to *write*. *resume* is called at most once, never before `park` returns, and
        ends the parking. Neither is called after `close`.
        """

    def close(self) -> None:
        """Release it, parked or not: its client left, or its last byte was written. May be called twice."""


@runtime_checkable
class LateReply(Parkable, Protocol):
    """A reply whose status is decided late: one JSON frame if the answer comes soon, else a stream of events.

    Nothing is written while it is parked. Once it is decided, `Reply.close` releases it.
    """

    async def decide(self) -> "Reply":
        """Wait for the answer, or until a stream has to start; returns the reply. Errors become JSON-RPC errors."""


async def decide(answer: "Reply | LateReply") -> "Reply":
    """Return the reply to an exchange; wait for a late one in this task. If the task is cancelled, release it."""
    return answer if isinstance(answer, Reply) else await answer.decide()


@lru_cache(maxsize=64)
def media_type(content_type: str) -> str:
    """Return the media type in a Content-Type header, without parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def frame_reply(frame: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a reply whose body is one JSON frame."""
    return Reply(status=status, headers={"Content-Type": JSON, **(headers or {})}, body=frame)


def replace_body(reply: Reply, body: bytes) -> Reply:
    """Return *reply* with another body."""
    return replace(reply, body=body, chunks=NOTHING)


async def read_body(reply: Reply) -> bytes:
    """Return the whole body; raises `ResponseTooLargeError` when it is longer than `MAX_ANSWER`."""
    return await join(reply.chunks) if reply.body is None else reply.body


async def join(chunks: AsyncIterator[bytes]) -> bytes:
    """Read chunks to their end; raises `ResponseTooLargeError` when they are longer than `MAX_ANSWER`."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_ANSWER:
            raise ResponseTooLargeError
        parts.append(chunk)
    return b"".join(parts)
