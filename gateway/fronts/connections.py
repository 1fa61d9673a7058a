"""Limits on HTTP connections: their number, and how slow a peer may be."""

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum, auto
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from approvals.client_address import LOCAL

#: The least rate, in bytes per second, at which a request body must arrive after its first minute.
MIN_BODY_RATE = 16 << 10
#: Seconds between two log lines about slow peers, or about too many connections.
LOG_INTERVAL = 60.0
#: Seconds by which a check may be late. After a longer delay the process is assumed to have stalled, not its peers.
STALL = 1.0
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
log = logging.getLogger("okayed.connections")


class Phase(Enum):
    """The phase of a connection, by the data that it waits for."""

    #: Its first byte.
    NEW = auto()
    #: The rest of a request's head.
    HEAD = auto()
    #: The rest of a request's body.
    BODY = auto()
    #: The gateway's answer.
    ANSWER = auto()
    #: The next request.
    IDLE = auto()


#: Phases that time out without a log line: browsers preconnect, and clients keep connections open.
_SILENT = (Phase.NEW, Phase.IDLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The time limits of a connection, in seconds."""

    first: float = 10.0
    #: From the first byte of the request.
    head: float = 10.0
    #: Plus one second for each MIN_BODY_RATE bytes received.
    body: float = 60.0
    idle: float = 75.0
    #: Without the peer reading any byte of its response.
    unread: float = 60.0
    #: Between two checks of all connections.
    tick: float = 1.0

    def limit_for(self, phase: Phase, received: int) -> float | None:
        """Return how many seconds *phase* may last after *received* bytes of the body; None for no limit."""
        return {
            Phase.NEW: self.first,
            Phase.HEAD: self.head,
            Phase.BODY: self.body + received / MIN_BODY_RATE,
            Phase.ANSWER: None,
            Phase.IDLE: self.idle,
        }[phase]


class Connections:
    """The open connections of one listener: at most *most*, none with a slow peer."""

    def __init__(self, name: str, most: int, deadlines: Deadlines | None = None) -> None:
        self.deadlines = deadlines or Deadlines()
        self._most = most
        self._open: set[Connection] = set()
        self._checked_at = 0.0
        self._slow = _LogCounter(f"{name}: closed connections of slow peers (%d since the start)")
        self._refused = _LogCounter(
            f"{name}: refused connections beyond the limit of {most} (%d since the start)"
        )

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: "Connection", now: float) -> bool:
        """Add a new connection; False at the limit."""
        if len(self._open) >= self._most:
            self._refused.count(now)
            return False
        self._open.add(connection)
        return True

    def discard(self, connection: "Connection") -> None:
        """Remove a closed connection."""
        self._open.discard(connection)

    async def watch(self) -> None:
        """Close the connections of slow peers, until cancelled."""
        while True:
            await asyncio.sleep(self.deadlines.tick)
            self.check(asyncio.get_running_loop().time())

    def check(self, now: float) -> None:
        """Close overdue connections. After a stall of the event loop, received data is read first."""
        stalled, self._checked_at = now > self._checked_at + self.deadlines.tick + STALL, now
        for connection in [one for one in self._open if not stalled and one.is_overdue(now)]:
            if connection.phase not in _SILENT:
                self._slow.count(now)
            connection.abort()


class _LogCounter:
    """Counts events, and logs the count at most once a minute."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._count = 0
        self._quiet_until = 0.0

    def count(self, now: float) -> None:
        self._count += 1
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_INTERVAL
            log.warning(self._line, self._count)


class Connection(web.RequestHandler):
    """An aiohttp connection that tracks how long it waits for its peer."""

    __slots__ = (
        "_connections",
        "_idle_phase",
        "_latest_body",
        "_peer_transport",
        "_read_at",
        "_since",
        "_unsent",
    )

    def __init__(self, server: web.Server, connections: Connections) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]  # None turns it off
        self._connections = connections
        self._peer_transport: asyncio.Transport | None = None
        #: The phase while no request is in progress, and when it began.
        self._idle_phase = Phase.NEW
        self._since = self._read_at = self._loop.time()
        #: How many bytes were unsent at the last check.
        self._unsent = 0
        #: The body of the last request; after an early refusal the rest of it is still arriving.
        self._latest_body: StreamReader = EMPTY_PAYLOAD

    @property
    def phase(self) -> Phase:
        """The current phase."""
        if not self._request_in_progress:
            return self._idle_phase
        request = self._current_request
        return Phase.ANSWER if request is None or request.content.is_eof() else Phase.BODY

    def is_overdue(self, now: float) -> bool:
        """Return whether the peer has exceeded a time limit."""
        request = self._current_request
        limit = self._connections.deadlines.limit_for(
            self.phase, request.content.total_bytes if request else 0
        )
        return (limit is not None and now > self._since + limit) or self._is_not_reading(now)

    def _is_not_reading(self, now: float) -> bool:
        """Return whether the peer has stopped reading a response."""
        unsent = self._peer_transport.get_write_buffer_size() if self._peer_transport is not None else 0
        if unsent == 0 or unsent < self._unsent:
            self._read_at = now
        self._unsent = unsent
        return now > self._read_at + self._connections.deadlines.unread

    def abort(self) -> None:
        """Close the connection at once; unsent data is lost."""
        if self._peer_transport is not None:
            self._peer_transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the connection, or refuse it at the limit."""
        self._peer_transport = cast("asyncio.Transport", transport)
        if self._connections.admit(self, self._loop.time()):
            super().connection_made(transport)
        else:
            self._peer_transport.write(FULL)
            self._peer_transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remove the connection."""
        self._connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Start the time limit of a request at its first byte."""
        first = self._idle_phase is not Phase.HEAD and self._latest_body.is_eof()
        if first and not self._request_in_progress:
            self._enter_phase(Phase.HEAD)
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Finish the response; then the connection is idle."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._latest_body = request.content
            self._enter_phase(Phase.IDLE)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer malformed HTTP with 400. The log line omits the bytes: they may contain a secret."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        log.info("%s sent malformed HTTP: %s", request.remote or LOCAL, exc.message.partition(":")[0])
        answer = web.Response(status=400, text="Bad request.")
        answer.force_close()
        return answer

    def _enter_phase(self, phase: Phase) -> None:
        self._idle_phase = phase
        self._since = self._loop.time()
