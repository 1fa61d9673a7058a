"""A connection of an agent: serves plain requests itself, and goes to aiohttp at the first other one."""

import asyncio
from typing import cast

from gateway.auth.agents import Agent
from gateway.call.exchange_limits import TooManyBytesError
from gateway.call.request import Exchange
from gateway.fronts import header_checks, plain_head
from gateway.fronts.answering_connection import AnsweringConnection
from gateway.fronts.connection_limits import FULL, PeerTimer, Phase
from gateway.fronts.endpoint import MAX_BODY
from gateway.fronts.known_heads import KnownHead
from gateway.fronts.plain_front import PlainFront
from gateway.upstreams.reply import Reply

#: The most bytes that are read ahead while a request is being answered; then the kernel keeps the rest.
MAX_UNREAD = 64 << 10


class _ArrivingBody:
    """A request body that is arriving. A refused request has no agent; its body is dropped."""

    __slots__ = ("agent", "known", "length", "parts", "received")

    def __init__(self, known: KnownHead, agent: Agent | None, length: int) -> None:
        self.known = known
        self.agent = agent
        self.length = length
        self.received = 0
        self.parts: list[bytes] = []

    def add(self, data: bytes, start: int) -> int:
        """Add the body's bytes in *data* from *start* on; returns their number."""
        part = data[start : start + self.length - self.received]
        self.received += len(part)
        if self.agent is not None:
            self.parts.append(part)
        return len(part)


class PlainConnection(AnsweringConnection):
    """A connection whose requests are read, checked and answered one after another."""

    __slots__ = ("_at", "_body", "_is_advancing", "_paused", "_reserved", "_timer", "_unread")

    def __init__(self, front: PlainFront) -> None:
        super().__init__(front)
        self._timer = PeerTimer(front.now())
        #: The bytes that have arrived, the place of the first unread one, and whether so many are unread that reading is
        #: paused.
        self._unread = b""
        self._at = 0
        self._paused = False
        self._is_advancing = False
        self._body: _ArrivingBody | None = None
        #: The agent and the size of the body that is being read or judged.
        self._reserved: tuple[str, int] | None = None

    # The connection.

    @property
    def phase(self) -> Phase:
        """The current phase."""
        if self._leave is not None:
            return Phase.ANSWER
        return self._timer.phase if self._body is None else Phase.BODY

    def is_overdue(self, now: float) -> bool:
        """Return whether the peer has exceeded a time limit."""
        deadlines, received = self._front.connections.deadlines, self._body.received if self._body else 0
        if self._leave is None and self._timer.is_overdue(self.phase, received, deadlines, now):
            return True
        return self._timer.is_not_reading(self._transport.get_write_buffer_size(), deadlines, now)

    def finish(self) -> None:
        """Close the connection after the exchange in progress."""
        if self._leave is None and self._body is None:
            self._close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the connection, or refuse it at the limit."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._front.admit(self):
            self._transport.write(FULL)
            self._transport.close()

    def connection_lost(self, error: BaseException | None) -> None:
        """Cancel the exchange in progress, and drop requests that have arrived but were not read."""
        self._front.discard(self)
        self._unread, self._at, self._body = b"", 0, None
        self._unreserve()
        super().connection_lost(error)

    def resume_writing(self) -> None:
        """Continue to write and to read."""
        super().resume_writing()
        self._advance()

    def data_received(self, data: bytes) -> None:
        """Read the requests in *data* and in the unread bytes before it."""
        self._unread = self._unread + data if self._unread else data
        self._advance()

    # Reading requests.

    def _advance(self) -> None:
        """Serve the requests that have arrived, in order, until one of them has to wait."""
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while self._at < len(self._unread) and self._leave is None and self._drained is None:
                if not (self._read_head() if self._body is None else self._read_body(self._body)):
                    break
        finally:
            self._unread, self._at = self._unread[self._at :], 0
            self._is_advancing = False
        if (len(self._unread) > MAX_UNREAD) is not self._paused:
            self._pause_or_resume_reading()

    def _pause_or_resume_reading(self) -> None:
        self._paused = not self._paused
        if self._paused:
            self._transport.pause_reading()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def _read_head(self) -> bool:
        """Read one head, and its body if it has arrived; False if the rest has to wait."""
        end = self._unread.find(plain_head.END, self._at)
        if end < 0:
            return self._wait_for_head()
        end += len(plain_head.END)
        found = self._front.heads.read(self._unread[self._at : end])
        if found is None or found[1] > MAX_BODY:
            return self._hand_over()
        known, length = found
        self._at = end
        self._is_last = not known.keep_alive
        if known.host_refusal is not None:
            self._refuse(known, known.host_refusal, length)
        elif known.probe:
            self._probe(known.probe)
        else:
            self._authenticate(known, length)
        return True

    def _wait_for_head(self) -> bool:
        if not plain_head.may_be_plain(self._unread[self._at :]):
            return self._hand_over()
        self._start_timer()
        return False

    def _start_timer(self) -> None:
        """Start the time limit of a request at its first byte."""
        if self._timer.phase is not Phase.HEAD:
            self._timer.enter(Phase.HEAD, self._front.now())

    def _hand_over(self) -> bool:
        """Let aiohttp serve this connection from here on. Every earlier request has been answered."""
        self._run(self._replace)
        return False

    async def _replace(self) -> None:
        successor = await self._front.make_successor(self._timer)
        self._leave = None
        if self._transport.is_closing():
            return
        if self._paused:
            self._transport.resume_reading()
        # The peer is not blamed for the time that aiohttp took to start.
        self._timer.enter(Phase.HEAD, self._front.now())
        self._front.discard(self)
        self._transport.set_protocol(successor)
        successor.connection_made(self._transport)
        successor.data_received(self._unread)
        self._unread = b""

    def _authenticate(self, known: KnownHead, length: int) -> None:
        admitted = self._front.authenticate(known, self._transport)
        if admitted is None:
            self._run(self._verify, known, length)
        else:
            self._receive(known, admitted, length)

    async def _verify(self, known: KnownHead, length: int) -> None:
        """Authenticate the agent by a token that takes time to verify; only then read its body."""
        admitted = await self._front.verify(known, self._transport)
        self._leave = None
        self._receive(known, admitted, length)
        self._advance()

    def _receive(self, known: KnownHead, admitted: Agent | Reply, length: int) -> None:
        """Read the body of an agent's request; answer a refused one before its body has arrived."""
        if isinstance(admitted, Reply):
            self._refuse(known, admitted, length)
            return
        end = self._at + length
        self._is_tracked = not known.is_subscription
        if end <= len(self._unread):
            body, self._at = self._unread[self._at : end], end
            self._serve(known, admitted, body)
        elif (refusal := self._reserve(admitted, length)) is not None:
            self._refuse(known, refusal, length)
        else:
            self._start_timer()
            self._track(self)
            self._body = _ArrivingBody(known, admitted, length)

    def _reserve(self, agent: Agent, length: int) -> Reply | None:
        """Count a body against its agent's limit, unless that has been done; return the refusal beyond the limit."""
        if self._reserved is None:
            try:
                self._front.endpoint.bodies.begin(agent.name, length)
            except TooManyBytesError as error:
                return header_checks.refuse(error.status, str(error), error.headers)
            self._reserved = agent.name, length
        return None

    def _refuse(self, known: KnownHead, refusal: Reply, length: int) -> None:
        self._write_whole(refusal, refusal.body or b"")
        if length:
            self._start_timer()
            self._body = _ArrivingBody(known, None, length)
        else:
            self._end()

    def _read_body(self, body: _ArrivingBody) -> bool:
        self._at += body.add(self._unread, self._at)
        if body.received < body.length:
            return False
        self._body = None
        if body.agent is None:
            self._end()
        else:
            self._serve(body.known, body.agent, b"".join(body.parts))
        return True

    def _unreserve(self) -> None:
        """Stop counting the body: it has been judged, or its client has left."""
        if self._reserved is not None:
            self._front.endpoint.bodies.end(*self._reserved)
            self._reserved = None

    # Serving exchanges.

    def _serve(self, known: KnownHead, agent: Agent, body: bytes) -> None:
        """Pass an exchange to the proxy. An allowed call is sent at once; any other exchange gets a task."""
        exchange = Exchange(agent=agent, server=known.server, verb=known.verb, body=body, head=known.head)
        sending = self._front.endpoint.proxy.at_once(exchange) if known.verb == "POST" else None
        if sending is not None:
            self._unreserve()
            self._leave = sending.abandon
            self._track(self)
            sending.start(self._answer)
        elif (refusal := self._reserve(agent, len(body))) is not None:
            self._refuse(known, refusal, 0)
        else:
            self._run(self._handle, exchange)

    async def _handle(self, exchange: Exchange) -> None:
        try:
            answer = await self._front.endpoint.proxy.begin(exchange)
        finally:
            self._unreserve()
        await self._reply(answer)

    def _probe(self, probe: str) -> None:
        if probe == "healthz":
            self._answer(self._front.endpoint.healthz())
        else:
            self._run(self._report_readiness)

    async def _report_readiness(self) -> None:
        await self._reply(await self._front.endpoint.readyz())

    def _end(self) -> None:
        """Go on to the next request, or close: the exchange has been answered."""
        self._leave = None
        self._is_tracked = False
        if self._tracked is not None:
            self._track(None)
        self._timer.enter(Phase.IDLE, self._front.now())
        if self._is_last or self._front.is_closing:
            self._close()
        elif self._unread:
            self._advance()

    def _close(self) -> None:
        self._unread, self._at = b"", 0
        super()._close()
