"""One client's exchanges, done as a client of Streamable HTTP does them, for a client that speaks something else.

The session id is kept. A session that is gone, as after a restart of the gateway, is opened again in the way that the client opened it.
A stream that ends before its answer is taken up again where the server lets us. A call that the gateway holds is asked for again by
its id, for as long as the gateway is away. Every request gets an answer under its id.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress

import msgspec

from gateway.errors import CutError, GatewayError, NotSentError, ResponseTooLargeError
from gateway.upstreams import answers
from gateway.upstreams.lifecycle import SessionRefusedError, reopen_session
from gateway.upstreams.reply import JSON, Reply, frame_reply, read_body
from gateway.wire import frames, protocol, sse

#: Does one exchange: verb, body, headers.
Exchange = Callable[[str, bytes, Mapping[str, str]], Awaitable[Reply]]
VERSION = "mcp-protocol-version"
#: Seconds for which a held call is asked for again while the gateway is away, and between two times.
AWAY = 600.0
PAUSE = 0.5
#: Told of a held call when the gateway did not come back.
LOST = (
    "The gateway went away while this call waited for a person, and did not come back. Make the same call again, with the"
    " same arguments: it runs once at most."
)
#: Told when a server answers a call with 404 and no result: it should not have run then, but some servers do run it.
DOUBT = "The server answered HTTP 404 without a result. The call MAY have run, so it was not sent again."
log = logging.getLogger("okayed.conversation")


class _Agreed(msgspec.Struct):
    revision: str = msgspec.field(name="protocolVersion")


class _Opened(msgspec.Struct):
    """What counts of the answer to initialize."""

    result: _Agreed


class Conversation:
    """What one client and its server say to each other."""

    def __init__(
        self, exchange: Exchange, headers: Mapping[str, str], *, away: float = AWAY, pause: float = PAUSE
    ) -> None:
        self._exchange = exchange
        self._headers = dict(headers)
        #: The params of the client's initialize, as JSON; b"" without a session.
        self._opening = b""
        self._initialized = False
        self._reopening = asyncio.Lock()
        self._away = away
        self._pause = pause
        #: The requests whose held call is being asked for again.
        self._again: set[frames.Id] = set()

    @property
    def session(self) -> str | None:
        """The session id, once the handshake is done; None where there is no session."""
        return self._headers.get(protocol.SESSION_HEADER) if self._initialized else None

    async def say(self, frame: frames.Frame, line: bytes) -> AsyncGenerator[bytes, None]:
        """Send a frame of the client's; yields the frames of the answer."""
        reply = await self._sent(frame, line)
        self._remember(frame, reply)
        async with aclosing(self._answer(frame, line, reply)) as answer:
            async for data in answer:
                if getattr(frame, "method", "") == "initialize":
                    self._agree(data)
                yield data

    async def hear(self) -> AsyncGenerator[bytes, None]:
        """Yield what the server says of its own accord in this session."""
        reply = await self._exchange("GET", b"", self._headers)
        if not reply.streams or reply.status != 200:
            reply.close()
            return
        async with aclosing(_frames(reply, sse.ResumePoint())) as heard:
            async for data in heard:
                yield data

    async def end(self) -> None:
        """End the session."""
        if protocol.SESSION_HEADER in self._headers:
            with suppress(GatewayError):  # a session that is gone already needs no end
                (await self._exchange("DELETE", b"", self._headers)).close()

    def asks_again(self, request_id: frames.Id) -> bool:
        """Say whether the gateway, being away, knows nothing of this request now."""
        return request_id in self._again

    async def _sent(self, frame: frames.Frame, line: bytes, held: str = "") -> Reply:
        """Send a frame. A 404 says that the session is gone: the frame goes out in a new one, unless it may have run."""
        session = self.session
        reply = await self._posted(frame, line, held)
        if reply.status != 404 or session is None:
            return reply
        if isinstance(frame, frames.CallFrame) and not reply.header(protocol.UNSENT_HEADER):
            return await self._answered(frame, reply, session)
        reply.close()
        await self._reopen(session)
        return await self._posted(frame, line, held)

    async def _posted(self, frame: frames.Frame, line: bytes, held: str) -> Reply:
        named = {protocol.HOLD_HEADER: held} if held else {}
        return await self._exchange(
            "POST", line, {**self._headers, **protocol.routing_headers(frame), **named}
        )

    async def _answered(self, call: frames.CallFrame, reply: Reply, session: str) -> Reply:
        """Return the answer in a server's 404; without one the client is told of the doubt, and the session opened again."""
        try:
            outcome = await answers.outcome_of(reply, call.id, lambda _: None)
        except CutError:
            with suppress(GatewayError):
                await self._reopen(session)
            return frame_reply(frames.error(call.id, GatewayError.code, DOUBT))
        return frame_reply(frames.answer(call.id, outcome))

    async def _reopen(self, lost: str) -> None:
        """Reopen the session, unless another frame has done so; a gateway that refuses answers the next frame itself."""
        async with self._reopening:
            if self._headers[protocol.SESSION_HEADER] != lost:
                return
            log.info("the session is lost; reopening it")
            with suppress(SessionRefusedError):
                self._headers |= await reopen_session(self._exchange, self._opening, self._headers)

    def _remember(self, frame: frames.Frame, reply: Reply) -> None:
        """Keep the session that an initialize opens, and how it was opened."""
        session = reply.header(protocol.SESSION_HEADER)
        if isinstance(frame, frames.Request) and frame.method == "initialize" and session:
            self._headers[protocol.SESSION_HEADER] = session
            self._opening, self._initialized = msgspec.json.encode(frame.params), False
        elif protocol.finishes_handshake(frame) and self._opening:
            self._initialized = True

    def _agree(self, data: bytes) -> None:
        """Note the revision that the answer to initialize agrees on."""
        with suppress(*frames.UNREADABLE):
            self._headers[VERSION] = msgspec.json.decode(data, type=_Opened).result.revision

    async def _answer(self, frame: frames.Frame, line: bytes, reply: Reply) -> AsyncGenerator[bytes, None]:
        """Yield the frames of an answer up to its end, which for a request is the answer under its id."""
        wanted, place = frames.request_id_of(frame), sse.ResumePoint()
        while True:
            held = reply.header(protocol.HOLD_HEADER)
            async with aclosing(_frames(reply, place, held)) as answer:
                async for data in answer:
                    if wanted is None and _is_error_for_nobody(frames.raw_members(data)):
                        continue  # a notification gets no answer (JSON-RPC 2.0, 4.1)
                    shown, ends = (data, False) if wanted is None else _addressed(data, wanted)
                    yield shown
                    wanted = None if ends else wanted
            if wanted is None:
                await reply.delivered()
                return
            reply = await (self._asked_again(frame, line, held) if held else self._rest(reply, place))

    async def _rest(self, reply: Reply, place: sse.ResumePoint) -> Reply:
        """Take up a stream that ended before its answer; raises `CutError` where it cannot be taken up."""
        if (wait := place.retry_delay()) is None:
            raise CutError(f"The server's answer, of HTTP status {reply.status}, ended without a result.")
        await asyncio.sleep(wait)
        return await self._exchange("GET", b"", {**self._headers, "last-event-id": place.id or ""})

    async def _asked_again(self, frame: frames.Frame, line: bytes, held: str) -> Reply:
        """Ask for a held call by its id until the gateway is back; raises `CutError` when it stays away."""
        request_id = frames.request_id_of(frame)
        self._again |= {request_id} if request_id is not None else set()
        try:
            async with asyncio.timeout(self._away):
                while True:
                    await asyncio.sleep(self._pause)
                    with suppress(NotSentError, CutError):
                        if _is_the_gateways(reply := await self._sent(frame, line, held)):
                            return reply
                        reply.close()
        except TimeoutError as error:
            raise CutError(LOST) from error
        finally:
            self._again -= {request_id}


def _is_the_gateways(reply: Reply) -> bool:
    """Say whether the gateway answered, and no proxy before it while the gateway is away."""
    return bool(reply.header(protocol.HOLD_HEADER)) or (reply.status < 500 and reply.media_type == JSON)


def _addressed(data: bytes, wanted: frames.Id) -> tuple[bytes, bool]:
    """Return a frame and whether it answers the request *wanted*; an error for nobody is for who asked."""
    members = frames.raw_members(data)
    if _is_error_for_nobody(members):
        return msgspec.json.encode({**members, "id": wanted}), True
    request_id = msgspec.json.decode(members.get("id", b"null"))
    return data, request_id == wanted and not members.keys().isdisjoint({"result", "error"})


def _is_error_for_nobody(members: Mapping[str, msgspec.Raw]) -> bool:
    return "error" in members and msgspec.json.decode(members.get("id", b"null")) is None


async def _frames(reply: Reply, place: sse.ResumePoint, held: str = "") -> AsyncGenerator[bytes, None]:
    """Yield the frames of a reply; what is no frame is not passed on. A cut stream only ends where there is a way to go on."""
    try:
        if not reply.streams:
            body = (await read_body(reply)).strip()
            if _is_frame(body):
                yield body
            return
        async for event in sse.events(reply.chunks):
            place.advance(event)
            if _is_frame(event.data):
                yield event.data
    except ResponseTooLargeError:
        raise
    except CutError:
        if place.id is None and not held:
            raise
    finally:
        reply.close()


def _is_frame(data: bytes) -> bool:
    try:
        frames.raw_members(data)
    except frames.UNREADABLE:
        return False
    return True
