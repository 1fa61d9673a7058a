"""Servers of the handshake revisions with one connection per session, behind the face of Streamable HTTP.

Capabilities, log level and subscriptions belong to a connection, so each session has one of its own. A connection that
ends is not missed until the next request, which is told that its session is gone.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from gateway.errors import BusyError, GatewayError, NotSentError, UnknownSessionError, UseInitializeError
from gateway.upstreams.multiplex import MultiplexedConnection, PendingRequest, is_response
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, protocol, sse

#: Seconds a request may stay without a frame before its answer becomes a stream, and between comments on it.
QUIET = 10.0
#: Seconds after which an idle session's connection is ended.
IDLE = 1800.0
MAX_SESSIONS = 64
#: Told of what comes after the end.
REPLACED = "The config was changed, and this connection to the server is closed; nothing was sent."


@dataclass(slots=True)
class _SessionConnection:
    connection: MultiplexedConnection
    used_at: float
    streaming: bool = False


class SessionUpstream:
    """One server, as many connections as its sessions need."""

    def __init__(
        self, connect: Callable[[], Awaitable[MultiplexedConnection]], clock: Callable[[], float]
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._sessions: dict[str, _SessionConnection] = {}
        #: How many connections are being made, each for one more session.
        self._connecting = 0
        self._stopping: set[asyncio.Task[None]] = set()
        self._closed = False

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; see `Upstream.send`."""
        self._check_open()
        given = {name.lower(): value for name, value in headers.items()}
        self._close_idle()
        if verb == "DELETE":
            return await self._delete(given)
        if verb == "GET":
            return self._open_stream(self._session(given))
        frame = frames.decode(body)
        if protocol.era(given, frame) is protocol.Era.MODERN:
            return await self._send_modern(frame, body)
        if isinstance(frame, frames.Request) and frame.method == "initialize":
            return await self._open(frame, body)
        connection = self._session(given).connection
        return await exchange_frame(connection, frame, body, leave=connection.forget)

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Say whether the session of *headers* has a connection."""
        session = self._sessions.get(headers.get(protocol.SESSION_HEADER, ""))
        return session is not None and not session.connection.ended.is_set()

    async def _send_modern(self, _frame: frames.Frame, _body: bytes, /) -> Reply:
        """Answer in the revision without sessions, for servers that speak it."""
        raise UseInitializeError

    async def _open(self, frame: frames.Frame, body: bytes) -> Reply:
        session_id, connection = secrets.token_hex(16), await self._add_connection()
        self._sessions[session_id] = _SessionConnection(connection, self._clock())
        try:
            reply = await exchange_frame(connection, frame, body, leave=connection.forget)
        except BaseException as error:
            self._sessions.pop(session_id, None)
            self._stop(connection)
            if isinstance(error, GatewayError):
                error.stderr = await connection.last_log_line()
            raise
        return replace(reply, headers={**reply.headers, protocol.SESSION_HEADER: session_id})

    async def _add_connection(self) -> MultiplexedConnection:
        """Make one more connection, unless there are enough; those that are just being made or stopped count."""
        if len(self._sessions) + self._connecting + len(self._stopping) >= MAX_SESSIONS:
            raise BusyError
        self._connecting += 1
        try:
            connection = await self._connect()
        finally:
            self._connecting -= 1
        try:
            self._check_open()
        except NotSentError:
            self._stop(connection)
            raise
        return connection

    def _check_open(self) -> None:
        """Refuse what comes late, such as a call that was claimed while a reload replaced its server: nobody would end its connection."""
        if self._closed:
            raise NotSentError(REPLACED)

    def _session(self, headers: Mapping[str, str]) -> _SessionConnection:
        if not self.knows(headers):
            raise UnknownSessionError
        session = self._sessions[headers[protocol.SESSION_HEADER]]
        session.used_at = self._clock()
        return session

    async def _delete(self, headers: Mapping[str, str]) -> Reply:
        self._session(headers)
        await asyncio.shield(self._stop(self._sessions.pop(headers[protocol.SESSION_HEADER]).connection))
        return Reply(status=200)

    def _open_stream(self, session: _SessionConnection) -> Reply:
        """Open the stream for messages that belong to no request; one per session, as in the SDKs."""
        if session.streaming:
            return Reply(status=409)
        session.streaming = True
        return Reply(
            status=200, headers=sse.HEADERS, chunks=_server_messages(session.connection), close=partial(setattr, session, "streaming", False),
        )  # fmt: skip

    def _close_idle(self) -> None:
        now = self._clock()
        idle = [
            session_id
            for session_id, session in self._sessions.items()
            if session.connection.ended.is_set()
            or (now - session.used_at > IDLE and not session.connection.pending and not session.streaming)
        ]
        for session_id in idle:
            self._stop(self._sessions.pop(session_id).connection)

    def _stop(self, connection: MultiplexedConnection) -> asyncio.Task[None]:
        """End a connection, whatever becomes of the request during which it is ended: nobody else knows of it any more."""
        task = asyncio.get_running_loop().create_task(connection.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        return task

    async def close(self) -> None:
        """End every connection, and make no more."""
        self._closed = True
        for session in self._sessions.values():
            self._stop(session.connection)
        self._sessions.clear()
        await asyncio.gather(*self._stopping)


def _always_200(_: bytes) -> int:
    return 200


async def exchange_frame(
    connection: MultiplexedConnection,
    frame: frames.Frame,
    body: bytes,
    *,
    leave: Callable[[PendingRequest], None],
    status: Callable[[bytes], int] = _always_200,
) -> Reply:
    """Send a frame; a request's reply is one frame, or a stream when more than one comes or none for a while.

    *leave* is called with the exchange in the end; *status* says the HTTP status of an answer that is one frame.
    """
    if not isinstance(frame, frames.Request | frames.CallFrame):
        await connection.send_message(body)
        return Reply(status=202)
    exchange = connection.send_request(body)
    try:
        first = await exchange.next_frame(QUIET)
    except BaseException:
        leave(exchange)
        raise
    if first is not None and is_response(first):
        return frame_reply(first, status=status(first))
    return Reply(
        status=200,
        headers=sse.HEADERS,
        chunks=_response_events(first, exchange),
        close=partial(leave, exchange),
    )


async def _response_events(first: bytes | None, exchange: PendingRequest) -> AsyncIterator[bytes]:
    frame = first
    while True:
        yield sse.comment("waiting") if frame is None else sse.event(frame)
        if frame is not None and is_response(frame):
            return
        frame = await exchange.next_frame(QUIET)


async def _server_messages(connection: MultiplexedConnection) -> AsyncIterator[bytes]:
    while not connection.ended.is_set():
        while connection.backlog:
            yield sse.event(connection.backlog.popleft())
        connection.has_backlog.clear()
        if connection.backlog or connection.ended.is_set():
            continue
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET):
                await connection.has_backlog.wait()
                continue
        yield sse.comment("waiting")
