"""A Streamable HTTP client to the gateway, on behalf of a client that connects over stdio.

It keeps the session id. A lost session (404) is reopened with the client's own initialize. A stream that ends before
its response is resumed if the server allows it. A held call is requested again by its id while the gateway is
unreachable. Every request gets a response.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress

import msgspec

from gateway.errors import ConnectionLostError, GatewayError, NotSentError, ResponseTooLargeError
from gateway.upstreams import answers
from gateway.upstreams.lifecycle import Send, SessionRefusedError, reopen_session
from gateway.upstreams.reply import JSON, Reply, frame_reply, read_body
from gateway.wire import frames, protocol, sse

VERSION_HEADER = "mcp-protocol-version"
#: Seconds for which a held call is requested again while the gateway is unreachable, and between two attempts.
RETRY_SECONDS = 600.0
RETRY_PAUSE = 0.5
#: The error for a held call when the gateway did not come back.
GATEWAY_LOST = (
    "The gateway stopped while this call waited for approval, and did not come back. Make the same call again, with the"
    " same arguments: it runs at most once."
)
#: The error for a call that a server answers with 404 and no result: some servers run such a call.
MAY_HAVE_RUN = (
    "The server answered HTTP 404 without a result. The call MAY have run, so it was not sent again."
)
log = logging.getLogger("okayed.client")


class _InitializeResult(msgspec.Struct):
    revision: str = msgspec.field(name="protocolVersion")


class _InitializeResponse(msgspec.Struct):
    """The member of the initialize response that is used."""

    result: _InitializeResult


class GatewayClient:
    """Sends one client's frames to the gateway and yields the answers."""

    def __init__(
        self,
        send: Send,
        headers: Mapping[str, str],
        *,
        retry_for: float = RETRY_SECONDS,
        retry_pause: float = RETRY_PAUSE,
    ) -> None:
        self._do_exchange = send
        self._headers = dict(headers)
        #: The params of the client's initialize, as JSON; b"" without a session.
        self._opening = b""
        self._initialized = False
        self._reopening = asyncio.Lock()
        self._retry_for = retry_for
        self._retry_pause = retry_pause
        #: The requests whose held call is being requested again.
        self._retrying: set[frames.Id] = set()

    @property
    def session(self) -> str | None:
        """The session id after the handshake; None without a session."""
        return self._headers.get(protocol.SESSION_HEADER) if self._initialized else None

    async def send(self, frame: frames.Frame, line: bytes) -> AsyncGenerator[bytes, None]:
        """Send a frame from the client, and yield the frames of the answer."""
        reply = await self._send(frame, line)
        self._record_session(frame, reply)
        async with aclosing(self._read_answer(frame, line, reply)) as answer:
            async for data in answer:
                if getattr(frame, "method", "") == "initialize":
                    self._record_revision(data)
                yield data

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Yield the server's messages outside of requests."""
        reply = await self._do_exchange("GET", b"", self._headers)
        if not reply.streams or reply.status != 200:
            reply.close()
            return
        async with aclosing(_read_frames(reply, sse.ResumePoint())) as messages:
            async for data in messages:
                yield data

    async def close(self) -> None:
        """End the session."""
        if protocol.SESSION_HEADER in self._headers:
            with suppress(GatewayError):  # the session may already be lost
                (await self._do_exchange("DELETE", b"", self._headers)).close()

    def is_retrying(self, request_id: frames.Id) -> bool:
        """Return whether a held call is being requested again, because the gateway is unreachable."""
        return request_id in self._retrying

    async def _send(self, frame: frames.Frame, line: bytes, held: str = "") -> Reply:
        """Send a frame. A 404 means a lost session: the frame is sent again in a new one, unless it may have run."""
        session = self.session
        reply = await self._post(frame, line, held)
        if reply.status != 404 or session is None:
            return reply
        if isinstance(frame, frames.CallFrame) and not reply.header(protocol.UNSENT_HEADER):
            return await self._answer_in_404(frame, reply, session)
        reply.close()
        await self._reopen(session)
        return await self._post(frame, line, held)

    async def _post(self, frame: frames.Frame, line: bytes, held: str) -> Reply:
        hold_header = {protocol.HOLD_HEADER: held} if held else {}
        return await self._do_exchange(
            "POST", line, {**self._headers, **protocol.routing_headers(frame), **hold_header}
        )

    async def _answer_in_404(self, call: frames.CallFrame, reply: Reply, session: str) -> Reply:
        """Return the response in a 404. If there is none, reopen the session and return the error `MAY_HAVE_RUN`."""
        try:
            outcome = await answers.read_outcome(reply, call.id, lambda _: None)
        except ConnectionLostError:
            with suppress(GatewayError):
                await self._reopen(session)
            return frame_reply(frames.build_error(call.id, GatewayError.code, MAY_HAVE_RUN))
        return frame_reply(frames.build_response(call.id, outcome))

    async def _reopen(self, lost: str) -> None:
        """Reopen the session, unless another frame has done so; a refusal shows in the answer to the next frame."""
        async with self._reopening:
            if self._headers[protocol.SESSION_HEADER] != lost:
                return
            log.info("the session is lost; reopening it")
            with suppress(SessionRefusedError):
                self._headers |= await reopen_session(self._do_exchange, self._opening, self._headers)

    def _record_session(self, frame: frames.Frame, reply: Reply) -> None:
        """Keep the session that an initialize opens, and its params."""
        session = reply.header(protocol.SESSION_HEADER)
        if isinstance(frame, frames.Request) and frame.method == "initialize" and session:
            self._headers[protocol.SESSION_HEADER] = session
            self._opening, self._initialized = msgspec.json.encode(frame.params), False
        elif protocol.finishes_handshake(frame) and self._opening:
            self._initialized = True

    def _record_revision(self, data: bytes) -> None:
        """Keep the protocol revision in the initialize response."""
        with suppress(*frames.UNREADABLE):
            self._headers[VERSION_HEADER] = msgspec.json.decode(
                data, type=_InitializeResponse
            ).result.revision

    async def _read_answer(
        self, frame: frames.Frame, line: bytes, reply: Reply
    ) -> AsyncGenerator[bytes, None]:
        """Yield the frames of an answer; that of a request ends with its response."""
        wanted, resume_point = frames.request_id_of(frame), sse.ResumePoint()
        while True:
            held = reply.header(protocol.HOLD_HEADER)
            async with aclosing(_read_frames(reply, resume_point, held)) as answer:
                async for data in answer:
                    if wanted is None and _is_error_without_id(frames.raw_members(data)):
                        continue  # a notification gets no response (JSON-RPC 2.0, 4.1)
                    answer_frame, ends = (data, False) if wanted is None else _match_answer(data, wanted)
                    yield answer_frame
                    wanted = None if ends else wanted
            if wanted is None:
                await reply.delivered()
                return
            reply = await (
                self._retry_held_call(frame, line, held) if held else self._resume(reply, resume_point)
            )

    async def _resume(self, reply: Reply, resume_point: sse.ResumePoint) -> Reply:
        """Resume a stream that ended before its response; raises `ConnectionLostError` if it cannot be resumed."""
        if (wait := resume_point.retry_delay()) is None:
            raise ConnectionLostError(
                f"The server's answer, of HTTP status {reply.status}, ended without a result."
            )
        await asyncio.sleep(wait)
        return await self._do_exchange("GET", b"", {**self._headers, "last-event-id": resume_point.id or ""})

    async def _retry_held_call(self, frame: frames.Frame, line: bytes, held: str) -> Reply:
        """Request a held call by its id until the gateway answers; raises `ConnectionLostError` after `retry_for`."""
        request_id = frames.request_id_of(frame)
        self._retrying |= {request_id} if request_id is not None else set()
        try:
            async with asyncio.timeout(self._retry_for):
                while True:
                    await asyncio.sleep(self._retry_pause)
                    with suppress(NotSentError, ConnectionLostError):
                        if _is_from_gateway(reply := await self._send(frame, line, held)):
                            return reply
                        reply.close()
        except TimeoutError as error:
            raise ConnectionLostError(GATEWAY_LOST) from error
        finally:
            self._retrying -= {request_id}


def _is_from_gateway(reply: Reply) -> bool:
    """Return whether the gateway answered, and not a proxy in front of an unreachable gateway."""
    return bool(reply.header(protocol.HOLD_HEADER)) or (reply.status < 500 and reply.media_type == JSON)


def _match_answer(data: bytes, wanted: frames.Id) -> tuple[bytes, bool]:
    """Return a frame, and whether it is the response to *wanted*; an error without an id gets that id."""
    members = frames.raw_members(data)
    if _is_error_without_id(members):
        return msgspec.json.encode({**members, "id": wanted}), True
    request_id = msgspec.json.decode(members.get("id", b"null"))
    return data, request_id == wanted and not members.keys().isdisjoint({"result", "error"})


def _is_error_without_id(members: Mapping[str, msgspec.Raw]) -> bool:
    return "error" in members and msgspec.json.decode(members.get("id", b"null")) is None


async def _read_frames(
    reply: Reply, resume_point: sse.ResumePoint, held: str = ""
) -> AsyncGenerator[bytes, None]:
    """Yield the frames of a reply, skip the rest; raises `ConnectionLostError` if a broken stream cannot resume."""
    try:
        if not reply.streams:
            body = (await read_body(reply)).strip()
            if _is_frame(body):
                yield body
            return
        async for event in sse.split_events(reply.chunks):
            resume_point.advance(event)
            if _is_frame(event.data):
                yield event.data
    except ResponseTooLargeError:
        raise
    except ConnectionLostError:
        if resume_point.id is None and not held:
            raise
    finally:
        reply.close()


def _is_frame(data: bytes) -> bool:
    try:
        frames.raw_members(data)
    except frames.UNREADABLE:
        return False
    return True
