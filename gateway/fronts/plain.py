"""An agents' connection that serves plain requests itself, and goes to aiohttp at the first other one."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

from gateway.auth.agents import Agent
from gateway.call.exchange_limits import TooManyBytesError
from gateway.call.request import Exchange
from gateway.errors import ConnectionLostError
from gateway.fronts import checks, head, responses
from gateway.fronts.connections import FULL, PeerTimer, Phase
from gateway.fronts.endpoint import MAX_BODY
from gateway.fronts.known_heads import KnownHead
from gateway.fronts.plain_front import PlainFront
from gateway.upstreams.reply import NOTHING, LateReply, Reply, note_nothing

#: The most bytes that are read ahead while a request is being answered; then the kernel keeps the rest.
MAX_UNREAD = 64 << 10
log = logging.getLogger("okayed.server")


class _ArrivingBody:
    """The body of a request, of which a part has arrived. A refused request has no agent; its body is dropped."""

    __slots__ = ("agent", "known", "length", "parts", "received")

    def __init__(self, known: KnownHead, agent: Agent | None, length: int) -> None:
        self.known = known
        self.agent = agent
        self.length = length
        self.received = 0
        self.parts: list[bytes] = []

    def add(self, data: bytes) -> bytes:
        """Add what belongs to the body, and return the rest."""
        missing = self.length - self.received
        part = data[:missing]
        self.received += len(part)
        if self.agent is not None:
            self.parts.append(part)
        return data[missing:]


class PlainConnection(asyncio.Protocol):
    """A connection whose requests are read, checked and answered one after another.

    It keeps no bytes, task or generator while its call is parked, since thousands of calls may be held.
    """

    __slots__ = (
        "_body", "_drained", "_front", "_is_advancing", "_is_last", "_is_tracked", "_leave", "_parked", "_paused",
        "_reserved", "_timer", "_tracked", "_transport", "_unread",
    )  # fmt: skip

    def __init__(self, front: PlainFront) -> None:
        self._front = front
        self._transport = cast("asyncio.Transport", None)
        self._timer = PeerTimer(front.now())
        #: What has arrived and is not read yet, and whether it is so much that reading is paused.
        self._unread = b""
        self._paused = False
        self._is_advancing = False
        self._body: _ArrivingBody | None = None
        #: The agent and the size of the body that is being read or judged.
        self._reserved: tuple[str, int] | None = None
        #: Cancels the exchange in progress when the client leaves; None between two exchanges.
        self._leave: Callable[[], object] | None = None
        #: The reply that waits without a task.
        self._parked: Reply | LateReply | None = None
        #: The entry of the exchange among those that shutdown waits for.
        self._tracked: object = None
        self._is_tracked = False
        #: Whether the connection closes after this exchange.
        self._is_last = False
        #: Done when the peer has read enough of the response; None while writing is not paused.
        self._drained: asyncio.Future[None] | None = None

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
        return self._timer.is_overdue(self.phase, received, deadlines, now) or self._timer.is_not_reading(
            self._transport.get_write_buffer_size(), deadlines, now
        )

    def abort(self) -> None:
        """Close the connection at once; unsent data is lost."""
        self._transport.abort()

    def finish(self) -> None:
        """Close the connection after the exchange in progress."""
        if self._leave is None and self._body is None:
            self._close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the connection, or refuse it at the limit."""
        self._transport = cast("asyncio.Transport", transport)
        if self._front.admit(self):
            _keep_alive(self._transport)
        else:
            self._transport.write(FULL)
            self._transport.close()

    def connection_lost(self, _: BaseException | None) -> None:
        """Cancel the exchange in progress."""
        self._front.discard(self)
        leave, self._leave, self._unread = self._leave, None, b""
        self._body = None
        self._unreserve()
        self._track(None)
        if leave is not None:
            leave()

    def pause_writing(self) -> None:
        """Wait for the peer to read its response, and read no further request meanwhile."""
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Write and read on."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)
        self._advance()

    def data_received(self, data: bytes) -> None:
        """Read the requests in *data*, after what has arrived before."""
        self._unread = self._unread + data if self._unread else data
        self._advance()

    # Reading requests.

    def _advance(self) -> None:
        """Serve the requests that have arrived, in order, until one of them has to wait."""
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while self._unread and self._leave is None and self._drained is None:
                if not (self._read_head() if self._body is None else self._read_body(self._body)):
                    break
        finally:
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
        received = self._unread
        end = received.find(head.END)
        if end < 0:
            return self._wait_for_head(received)
        end += len(head.END)
        found = self._front.heads.read(received[:end])
        if found is None or found[1] > MAX_BODY:
            return self._hand_over()
        known, length = found
        self._unread = received[end:]
        self._is_last = not known.keep_alive
        if known.host_refusal is not None:
            self._refuse(known, known.host_refusal, length)
        elif known.probe:
            self._probe(known.probe)
        else:
            self._authenticate(known, length)
        return True

    def _wait_for_head(self, received: bytes) -> bool:
        if not head.may_be_plain(received):
            return self._hand_over()
        self._start_timer()
        return False

    def _start_timer(self) -> None:
        """Start the time limit of a request at its first byte."""
        if self._timer.phase is not Phase.HEAD:
            self._timer.enter(Phase.HEAD, self._front.now())

    def _hand_over(self) -> bool:
        """Let aiohttp serve this connection from here on. Every earlier request has been answered."""
        self._start_timer()
        self._run(self._replace)
        return False

    async def _replace(self) -> None:
        successor = await self._front.make_successor(self._timer)
        self._leave = None
        if self._transport.is_closing():
            return
        if self._paused:
            self._transport.resume_reading()
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
        """Authenticate the agent by a token that takes time to verify; only then its body is read."""
        admitted = await self._front.verify(known, self._transport)
        self._leave = None
        self._receive(known, admitted, length)
        self._advance()

    def _receive(self, known: KnownHead, admitted: Agent | Reply, length: int) -> None:
        """Read the body of an agent's request; answer a refused one before its body has arrived."""
        if isinstance(admitted, Reply):
            self._refuse(known, admitted, length)
            return
        try:
            self._front.endpoint.bodies.begin(admitted.name, length)
        except TooManyBytesError as error:
            self._refuse(known, checks.refuse(error.status, str(error), error.headers), length)
            return
        self._reserved = admitted.name, length
        self._is_tracked = not known.is_subscription
        if length <= len(self._unread):
            body, self._unread = self._unread[:length], self._unread[length:]
            self._serve(known, admitted, body)
        else:
            self._start_timer()
            self._track(self)
            self._body = _ArrivingBody(known, admitted, length)

    def _refuse(self, known: KnownHead, refusal: Reply, length: int) -> None:
        self._write_whole(refusal, refusal.body or b"")
        if length:
            self._start_timer()
            self._body = _ArrivingBody(known, None, length)
        else:
            self._end()

    def _read_body(self, body: _ArrivingBody) -> bool:
        self._unread = body.add(self._unread)
        if body.received < body.length:
            return False
        self._body = None
        if body.agent is None:
            self._end()
        else:
            self._serve(body.known, body.agent, b"".join(body.parts))
        return True

    def _unreserve(self) -> None:
        """Count the body no longer: it has been judged, or its client has left."""
        if self._reserved is not None:
            self._front.endpoint.bodies.end(*self._reserved)
            self._reserved = None

    # Serving exchanges.

    def _serve(self, known: KnownHead, agent: Agent, body: bytes) -> None:
        """Pass an exchange to the proxy. An allowed call is sent at once; any other exchange gets a task."""
        exchange = Exchange(agent=agent, server=known.server, verb=known.verb, body=body, head=known.head)
        sending = self._front.endpoint.proxy.at_once(exchange) if known.verb == "POST" else None
        if sending is None:
            self._run(self._handle, exchange)
            return
        self._unreserve()
        self._leave = sending.abandon
        self._track(self)
        sending.start(self._answer)

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

    def _run(self, work: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> None:
        """Go on in a task, which is cancelled when the client leaves."""
        task = self._front.spawn(self._guard(work, *given))
        self._leave = task.cancel
        self._track(task)

    async def _guard(self, work: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> None:
        """Work until it ends. It begins here, since the coroutine of a task cancelled early is never awaited."""
        try:
            await work(*given)
        except ConnectionResetError:
            self.abort()  # the client has left
        except Exception:
            log.exception("an exchange failed")
            self.abort()

    def _track(self, entry: object) -> None:
        """Count the exchange among those that shutdown waits for, as *entry*; None when it has ended."""
        running = self._front.endpoint.running
        if self._tracked is not None:
            running.discard(self._tracked)
        self._tracked = entry if self._is_tracked else None
        if self._tracked is not None:
            running.add(self._tracked)

    # Writing replies.

    def _answer(self, reply: Reply) -> None:
        """Write a reply at once if it is whole and its delivery is not recorded; else in a task."""
        if reply.body is None or reply.delivered is not note_nothing:
            self._run(self._reply, reply)
            return
        self._write_whole(reply, reply.body)
        reply.close()
        self._end()

    async def _reply(self, answer: Reply | LateReply) -> None:
        """Write an answer, unless it parks: then `_resume` continues."""
        if not isinstance(answer, Reply):
            if answer.park(_write_nothing, self._resume):
                self._park(answer)
                return
            answer = await answer.decide()
        whole = _whole_body(answer)
        if whole is None:
            self._transport.write(self._head(answer, None))
        else:
            self._write_whole(answer, whole)
        await self._write_rest(answer, chunked=whole is None)

    async def _write_rest(self, reply: Reply, *, chunked: bool) -> None:
        """Write the chunks of a reply until they end or park."""
        try:
            if chunked and await self._write_chunks(reply):
                return
            await self._drain()
            await reply.delivered()
        except ConnectionLostError as error:
            log.info("a response broke off: %s", error)
            self._close()  # so that the client does not mistake an incomplete response for a complete one
        except BaseException:
            await _release(reply)
            raise
        await _release(reply)
        self._end()

    async def _write_chunks(self, reply: Reply) -> bool:
        """Write the chunks, and the last chunk at their end. Returns whether they are parked instead."""
        park = getattr(reply.chunks, "park", None)
        while park is None or not park(self._write_sign, self._resume):
            chunk = await anext(reply.chunks, None)
            if chunk is None:
                self._transport.write(responses.LAST_CHUNK)
                return False
            self._transport.write(responses.build_chunk(chunk))
            await self._drain()
        self._park(reply)
        return True

    def _write_whole(self, reply: Reply, body: bytes) -> None:
        self._transport.write(self._head(reply, len(body)) + body)

    def _head(self, reply: Reply, length: int | None) -> bytes:
        close = self._is_last or self._front.is_closing
        return responses.build_head(reply.status, reply.headers, length, close=close)

    def _write_sign(self, data: bytes) -> None:
        """Write a sign of life, unless the peer does not read."""
        if self._drained is None:
            self._transport.write(responses.build_chunk(data))

    async def _drain(self) -> None:
        """Wait until the peer has read enough; raises `ConnectionResetError` if it has left."""
        if self._drained is not None:
            await self._drained
        if self._transport.is_closing():
            raise ConnectionResetError

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
        self._unread = b""
        self._transport.close()

    # Waiting without a task.

    def _park(self, parked: Reply | LateReply) -> None:
        self._parked = parked
        self._leave = self._leave_parked
        self._track(self)

    def _resume(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None:
            self._run(self._continue, parked)

    async def _continue(self, parked: Reply | LateReply) -> None:
        if isinstance(parked, Reply):
            await self._write_rest(parked, chunked=True)
        else:
            await self._reply(parked)

    def _leave_parked(self) -> None:
        parked, self._parked = self._parked, None
        if isinstance(parked, Reply):
            self._front.spawn(_release(parked))
        elif parked is not None:
            parked.close()


def _whole_body(reply: Reply) -> bytes | None:
    """Return the body if it is in memory; None if it arrives in chunks."""
    if reply.status in responses.BODILESS or (reply.body is None and reply.chunks is NOTHING):
        return b""
    return reply.body


async def _release(reply: Reply) -> None:
    """Close a reply and its body."""
    reply.close()
    if (aclose := getattr(reply.chunks, "aclose", None)) is not None:
        await aclose()


def _write_nothing(_: bytes) -> None:
    """Drop a sign of life: no head has been written yet."""


def _keep_alive(transport: asyncio.Transport) -> None:
    """Let the kernel find out that a silent peer is gone."""
    connected = transport.get_extra_info("socket")
    if connected is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
