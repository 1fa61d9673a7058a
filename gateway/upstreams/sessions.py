"""Serves Streamable HTTP sessions with one connection each, for servers of the handshake revisions.

Capabilities, log level and subscriptions belong to a connection, so each session needs its own. When a connection
ends, the next request of its session gets `UnknownSessionError`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from gateway.errors import BusyError, GatewayError, NotSentError, UnknownSessionError, UseInitializeError
from gateway.upstreams.multiplex import MultiplexedConnection, PendingRequest, is_response
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, protocol, sse

#: Seconds without a frame after which a response becomes a stream, and between keep-alive comments on streams.
QUIET = 10.0
#: Seconds after which the connection of an idle session is closed.
IDLE = 1800.0
MAX_SESSIONS = 64
#: The error for a request after `close`.
REPLACED = "The config changed and this connection to the server is closed; nothing was sent."


@dataclass(slots=True)
class _SessionConnection:
    connection: MultiplexedConnection
    used_at: float
    streaming: bool = False


class SessionUpstream:
    """One server with one connection per session."""

    def __init__(
        self, connect: Callable[[], Awaitable[MultiplexedConnection]], clock: Callable[[], float]
    ) -> None:
        self._connect = connect
        self._clock = clock
        self.sessions: dict[str, _SessionConnection] = {}
        #: How many connections are being opened, each for a new session.
        self._connecting = 0
        self._stopping: set[asyncio.Task[None]] = set()
        self._closed = False

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; see `Upstream.send`."""
        self._check_open()
        headers = {name.lower(): value for name, value in headers.items()}
        self._close_idle()
        if verb == "DELETE":
            return await self._delete(headers)
        if verb == "GET":
            return self._open_stream(self._session(headers))
        frame = frames.decode(body)
        if protocol.era(headers, frame) is protocol.Era.MODERN:
            return await self._send_modern(frame, body)
        if isinstance(frame, frames.Request) and frame.method == "initialize":
            return await self._open(frame, body)
        connection = self._session(headers).connection
        return await exchange_frame(connection, frame, body, on_end=connection.forget)

    def line(self) -> None:
        """Return None: a process answers by frames."""

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Return whether the session in *headers* has a connection."""
        session = self.sessions.get(headers.get(protocol.SESSION_HEADER, ""))
        return session is not None and not session.connection.ended.is_set()

    async def _send_modern(self, _frame: frames.Frame, _body: bytes, /) -> Reply:
        """Send a request of 2026-07-28; a subclass overrides this if its servers support that revision."""
        raise UseInitializeError

    async def _open(self, frame: frames.Frame, body: bytes) -> Reply:
        session_id, connection = secrets.token_hex(16), await self._add_connection()
        self.sessions[session_id] = _SessionConnection(connection, self._clock())
        try:
            reply = await exchange_frame(connection, frame, body, on_end=connection.forget)
        except BaseException as error:
            self.sessions.pop(session_id, None)
            self._stop(connection)
            if isinstance(error, GatewayError):
                error.stderr = await connection.last_log_line()
            raise
        return replace(reply, headers={**reply.headers, protocol.SESSION_HEADER: session_id})

    async def _add_connection(self) -> MultiplexedConnection:
        """Open a connection; raises `BusyError` at the limit, including connections that are opening or stopping."""
        if len(self.sessions) + self._connecting + len(self._stopping) >= MAX_SESSIONS:
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
        """Raise `NotSentError` after `close`: a connection opened then, during a reload, would never be closed."""
        if self._closed:
            raise NotSentError(REPLACED)

    def _session(self, headers: Mapping[str, str]) -> _SessionConnection:
        if not self.knows(headers):
            raise UnknownSessionError
        session = self.sessions[headers[protocol.SESSION_HEADER]]
        session.used_at = self._clock()
        return session

    async def _delete(self, headers: Mapping[str, str]) -> Reply:
        self._session(headers)
        await asyncio.shield(self._stop(self.sessions.pop(headers[protocol.SESSION_HEADER]).connection))
        return Reply(status=200)

    def _open_stream(self, session: _SessionConnection) -> Reply:
        """Open the session's stream for messages outside of requests; one per session, as in the SDKs."""
        if session.streaming:
            return Reply(status=409)
        session.streaming = True
        return Reply(
            status=200, headers=sse.HEADERS, chunks=_server_messages(session.connection),
            close=partial(setattr, session, "streaming", False),
        )  # fmt: skip

    def _close_idle(self) -> None:
        now = self._clock()
        idle = [
            session_id
            for session_id, session in self.sessions.items()
            if session.connection.ended.is_set()
            or (now - session.used_at > IDLE and not session.connection.pending and not session.streaming)
        ]
        for session_id in idle:
            self._stop(self.sessions.pop(session_id).connection)

    def _stop(self, connection: MultiplexedConnection) -> asyncio.Task[None]:
        """Stop a connection in a separate task, so that it ends even if the current request is cancelled."""
        task = asyncio.get_running_loop().create_task(connection.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        return task

    async def close(self) -> None:
        """Close every connection and open no more."""
        self._closed = True
        for session in self.sessions.values():
            self._stop(session.connection)
        self.sessions.clear()
        await asyncio.gather(*self._stopping)


def _always_200(_: bytes) -> int:
    return 200


async def exchange_frame(
    connection: MultiplexedConnection,
    frame: frames.Frame,
    body: bytes,
    *,
    on_end: Callable[[PendingRequest], None],
    status: Callable[[bytes], int] = _always_200,
) -> Reply:
    """Send a frame. The reply is one frame, or a stream if the response is not the first frame, within `QUIET` seconds.

    *on_end* is called with the request at its end; *status* returns the HTTP status of a response that comes first.
    """
    if not isinstance(frame, frames.Request | frames.CallFrame):
        await connection.send_message(body)
        return Reply(status=202)
    request = connection.send_request(body)
    try:
        first = await request.next_frame(QUIET)
    except BaseException:
        on_end(request)
        raise
    if first is not None and is_response(first):
        return frame_reply(first, status=status(first))
    return Reply(
        status=200,
        headers=sse.HEADERS,
        chunks=_response_events(first, request),
        close=partial(on_end, request),
    )


async def _response_events(first: bytes | None, request: PendingRequest) -> AsyncIterator[bytes]:
    frame = first
    while True:
        yield sse.build_comment("waiting") if frame is None else sse.build_event(frame)
        if frame is not None and is_response(frame):
            return
        frame = await request.next_frame(QUIET)


async def _server_messages(connection: MultiplexedConnection) -> AsyncIterator[bytes]:
    while not connection.ended.is_set():
        while connection.backlog:
            yield sse.build_event(connection.backlog.popleft())
        connection.has_backlog.clear()
        if connection.backlog or connection.ended.is_set():
            continue
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET):
                await connection.has_backlog.wait()
                continue
        yield sse.build_comment("waiting")
