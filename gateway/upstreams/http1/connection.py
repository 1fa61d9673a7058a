"""One connection to a server. It carries one exchange at a time and calls back when something arrives."""

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.errors import ConnectionLostError, NotSentError
from gateway.upstreams import Receive
from gateway.upstreams.http1.response import (
    END_OF_HEAD,
    MAX_HEAD,
    MalformedResponseError,
    ResponseHead,
    UntilClose,
    check_size,
    read_head,
)
from gateway.upstreams.http1.response_body import ResponseBody
from gateway.upstreams.reply import Reply

#: A body of a known length up to this (bytes) is delivered whole; a longer one, or a stream, as it arrives.
MAX_WHOLE = 1 << 20
#: The bytes of a request body that are written at once; a longer body waits for the transport after each piece.
PIECE = 256 << 10


class ServerConnection(asyncio.Protocol):
    """A connection that is idle, or waits for the rest of one response."""

    def __init__(
        self,
        origin: str,
        on_idle: Callable[["ServerConnection"], None],
        on_lost: Callable[["ServerConnection"], None],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """*on_idle* is called after each exchange that leaves it usable; *on_lost* once, when the connection ended.

        *call_soon* calls a function at the end of the loop's turn.
        """
        self.origin = origin
        #: When the last exchange ended, on the loop's clock.
        self.idle_since = 0.0
        #: Whether it is reserved for an exchange.
        self.reserved = True
        self._on_idle, self._on_lost = on_idle, on_lost
        self._transport: asyncio.Transport | None = None
        #: Receives the reply; None before a request and after its reply.
        self._receive: Receive | None = None
        self._body: ResponseBody | None = None
        #: The part of a head that has arrived, and the size of the informational responses (1xx) before it.
        self._partial = b""
        self._skipped = 0
        #: Whether a part of the request was written, and the rest of it.
        self._is_begun = False
        self._unsent: bytes | memoryview = b""
        self._call_soon = call_soon
        self._may_write = True
        self._paused = False

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def start(self, head: bytes, body: bytes, receive: Receive) -> None:
        """Send a request; *receive* is called once, maybe before this returns.

        A reply with a body of a known length up to `MAX_WHOLE` has it in `Reply.body`; a stream of events never has.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            receive(NotSentError())
            return
        self._receive = receive
        self._is_begun = False
        self._unsent = head + body
        # The requests of one turn of the loop are written together at its end, so that they wake the server once.
        self._call_soon(self._write_on)

    def cancel(self, receive: Receive) -> None:
        """Close the connection if the exchange of *receive* still waits for its reply, which is then not delivered."""
        if self._receive == receive:
            self._receive = None
            self.close()

    def close(self) -> None:
        """Close the connection.

        The running exchange, or the reader of its body, gets `ConnectionLostError`; `NotSentError` before it is written.
        """
        self._fail(ConnectionLostError())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        """Stop writing a long body."""
        self._may_write = False

    def resume_writing(self) -> None:
        """Continue to write a long body."""
        self._may_write = True
        self._write_on()

    def data_received(self, data: bytes) -> None:
        """Read a part of a response."""
        try:
            if self._body is not None:
                self._read_body(self._body, data)
            else:
                self._read_head(data)
        except ConnectionLostError as error:
            self._fail(error)

    def eof_received(self) -> None:
        """End a body that ends with the connection. The transport closes itself after this."""
        if self._body is not None and isinstance(self._body.framing, UntilClose):
            self._body.end()
            self._complete(self._body)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the running exchange."""
        lost = ConnectionLostError()
        lost.__cause__ = error
        self._transport = None
        self._fail(lost)
        self._on_lost(self)

    def _write_on(self) -> None:
        """Write the rest of the request, in pieces: a server that reads slowly must not delay other exchanges."""
        while self._may_write and self._unsent and self.is_open:
            self._is_begun = True
            piece, self._unsent = self._unsent, b""
            if len(piece) > PIECE:
                rest = memoryview(piece)
                piece, self._unsent = rest[:PIECE], rest[PIECE:]
            cast("asyncio.Transport", self._transport).write(piece)

    def _read_head(self, data: bytes) -> None:
        data = self._partial + data
        while data:
            if self._receive is None or not self._is_begun:
                raise MalformedResponseError  # a response without a request
            end = data.find(END_OF_HEAD)
            if end < 0:
                check_size(data)
                break
            head, data = read_head(data[: end + 4]), data[end + 4 :]
            if head.status >= 200:
                self._partial, self._skipped = b"", 0
                self._begin_body(head, data)
                return
            self._skipped += end
            if self._skipped > MAX_HEAD:
                raise MalformedResponseError
        self._partial = data

    def _begin_body(self, head: ResponseHead, data: bytes) -> None:
        receive = self._receive
        if len(data) == head.length and not head.streams and receive is not None:  # the usual response
            self._end_exchange(reusable=head.keep_alive)
            receive(Reply(status=head.status, headers=head.headers, body=data))
            return
        self._body = body = ResponseBody(head, self.close, self._resume_reading)
        self._read_body(body, data)
        if self._receive is not None and (head.streams or head.length is None or head.length > MAX_WHOLE):
            self._deliver(body)

    def _read_body(self, body: ResponseBody, data: bytes) -> None:
        body.feed(data)
        if body.framing.done:
            self._complete(body)
        elif self._receive is None and body.is_full and self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _complete(self, body: ResponseBody) -> None:
        receive = self._receive
        self._end_exchange(reusable=body.head.keep_alive and not body.framing.excess)
        if receive is not None:
            receive(body.reply())

    def _deliver(self, body: ResponseBody) -> None:
        receive, self._receive = self._receive, None
        if receive is not None:
            receive(body.reply())

    def _end_exchange(self, *, reusable: bool) -> None:
        """Become idle, or close: after `Connection: close`, excess bytes, or a response to a half-sent request."""
        self._receive = self._body = None
        if reusable and not self._unsent and self.is_open:
            self._resume_reading()
            self._on_idle(self)
        elif self._transport is not None:
            self._transport.abort()

    def _fail(self, error: ConnectionLostError) -> None:
        body, receive = self._body, self._receive
        self._receive = self._body = None
        if self._transport is not None:
            self._transport.abort()
        if body is not None:
            body.fail(error)
        if receive is not None:
            lost = error if self._is_begun else NotSentError()
            receive(lost if body is None else body.reply())
