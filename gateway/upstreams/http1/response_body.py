"""The body of a response, read while it arrives."""

import asyncio
from collections.abc import Callable

from gateway.errors import ConnectionLostError
from gateway.upstreams.http1.response import ResponseHead
from gateway.upstreams.reply import Reply

#: Buffered bytes above which no more are read from the server until the reader has taken them.
MAX_BUFFERED = 256 << 10


class ResponseBody:
    """The chunks of one body. One reader iterates over them; `close` before the end cancels the exchange."""

    __slots__ = ("_cancel", "_failure", "_parts", "_reader", "_resume", "_size", "framing", "head")

    def __init__(self, head: ResponseHead, cancel: Callable[[], None], resume: Callable[[], None]) -> None:
        """*cancel* closes the connection; *resume* is called when the reader has taken all buffered bytes."""
        self.head = head
        self.framing = head.framing()
        self._cancel, self._resume = cancel, resume
        self._parts: list[bytes] = []
        self._size = 0
        self._failure: ConnectionLostError | None = None
        self._reader: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """Add bytes from the server; raises `MalformedResponseError`."""
        if part := self.framing.feed(data):
            self._parts.append(part)
            self._size += len(part)
        self._wake()

    @property
    def is_full(self) -> bool:
        """Whether so much is buffered that the server has to wait."""
        return self._size > MAX_BUFFERED

    def end(self) -> None:
        """Note that the body is complete."""
        self.framing.done = True
        self._wake()

    def fail(self, failure: ConnectionLostError) -> None:
        """Note that the rest of the body will not arrive."""
        self._failure = failure
        self._wake()

    def reply(self) -> Reply:
        """Return the reply: with the whole body if it is complete and not a stream of events, else with its chunks."""
        if self.framing.done and not self.head.streams:
            return Reply(status=self.head.status, headers=self.head.headers, body=self._take())
        return Reply(status=self.head.status, headers=self.head.headers, chunks=self, close=self.close)

    def __aiter__(self) -> "ResponseBody":
        """Iterate over the chunks."""
        return self

    async def __anext__(self) -> bytes:
        """Return all bytes that have arrived, at least one; raises `ConnectionLostError` if the rest is lost."""
        while not self._parts:
            if self.framing.done:
                raise StopAsyncIteration
            if self._failure is not None:
                raise self._failure
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._take()
        if self._is_running:
            self._resume()
        return data

    async def aclose(self) -> None:
        """Do nothing. Readers close every body, since most are generators."""

    def close(self) -> None:
        """Cancel the exchange unless the body is complete."""
        if self._is_running:
            self._cancel()

    @property
    def _is_running(self) -> bool:
        return not self.framing.done and self._failure is None

    def _take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return data

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
