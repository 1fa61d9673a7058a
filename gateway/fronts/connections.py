"""HTTP connections: how long a peer may take, and how many there may be."""

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum, auto
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from approvals.client_address import LOCAL

#: A request body must arrive at this rate, in bytes per second, once its first minute is over.
RATE = 16 << 10
#: Seconds between two lines in the log about one listener's slow peers, or about its being full.
QUIET = 60.0
#: A look that comes so many seconds late says that the process stood still, and not that peers did.
HELD_UP = 1.0
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
log = logging.getLogger("okayed.connections")


class Phase(Enum):
    """What a connection waits for."""

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


#: Phases that end without a word: browsers open connections ahead, and clients keep them.
_SILENT = (Phase.NEW, Phase.IDLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a peer may take, in seconds."""

    first: float = 10.0
    #: From the first byte of the request.
    head: float = 10.0
    #: And one second more for each RATE bytes received.
    body: float = 60.0
    idle: float = 75.0
    #: To take any byte of what is waiting to be sent.
    unread: float = 60.0
    #: Between two looks at all connections.
    tick: float = 1.0

    def allowed(self, phase: Phase, received: int) -> float | None:
        """Return the seconds that *phase* may last once *received* bytes of a body have come; None for any time."""
        return {
            Phase.NEW: self.first,
            Phase.HEAD: self.head,
            Phase.BODY: self.body + received / RATE,
            Phase.ANSWER: None,
            Phase.IDLE: self.idle,
        }[phase]


class Connections:
    """The open connections of one listener: at most *most*, and none of a slow peer."""

    def __init__(self, name: str, most: int, deadlines: Deadlines | None = None) -> None:
        self.deadlines = deadlines or Deadlines()
        self._most = most
        self._open: set[Connection] = set()
        self._looked_at = 0.0
        self._slow = _Tally(f"{name}: connections of slow peers are cut (%d since the start)")
        self._refused = _Tally(
            f"{name}: all {most} connections are taken; new ones are refused (%d since the start)"
        )

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: "Connection", now: float) -> bool:
        """Take in a new connection when there is room for it."""
        if len(self._open) >= self._most:
            self._refused.count(now)
            return False
        self._open.add(connection)
        return True

    def discard(self, connection: "Connection") -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)

    async def watch(self) -> None:
        """Cut the connections of slow peers, until cancelled."""
        while True:
            await asyncio.sleep(self.deadlines.tick)
            self.look(asyncio.get_running_loop().time())

    def look(self, now: float) -> None:
        """Cut the connections that are overdue. Once the loop was held up, what came meanwhile is read first."""
        held_up, self._looked_at = now > self._looked_at + self.deadlines.tick + HELD_UP, now
        for connection in [one for one in self._open if not held_up and one.overdue(now)]:
            if connection.phase not in _SILENT:
                self._slow.count(now)
            connection.cut()


class _Tally:
    """Counts events that could flood the log, and logs the count at most once a minute."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._count = 0
        self._quiet_until = 0.0

    def count(self, now: float) -> None:
        self._count += 1
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            log.warning(self._line, self._count)


class Connection(web.RequestHandler):
    """One HTTP connection of aiohttp's, which knows since when its peer keeps it waiting."""

    __slots__ = ("_between", "_connections", "_latest_body", "_since", "_taken_at", "_unsent", "_wire")

    def __init__(self, server: web.Server, connections: Connections) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]  # None turns it off
        self._connections = connections
        self._wire: asyncio.Transport | None = None
        #: What is waited for while no request is under way, and since when.
        self._between = Phase.NEW
        self._since = self._taken_at = self._loop.time()
        #: How many bytes the peer had not taken at the last look.
        self._unsent = 0
        #: After an early refusal the rest of this body is still to come.
        self._latest_body: StreamReader = EMPTY_PAYLOAD

    @property
    def phase(self) -> Phase:
        """What the connection waits for now."""
        if not self._request_in_progress:
            return self._between
        request = self._current_request
        return Phase.ANSWER if request is None or request.content.is_eof() else Phase.BODY

    def overdue(self, now: float) -> bool:
        """Say whether the peer has kept the connection waiting for too long."""
        request = self._current_request
        allowed = self._connections.deadlines.allowed(
            self.phase, request.content.total_bytes if request else 0
        )
        return (allowed is not None and now > self._since + allowed) or self._unread(now)

    def _unread(self, now: float) -> bool:
        """Say whether answers wait to be sent of which the peer takes nothing."""
        unsent = self._wire.get_write_buffer_size() if self._wire is not None else 0
        if unsent == 0 or unsent < self._unsent:
            self._taken_at = now
        self._unsent = unsent
        return now > self._taken_at + self._connections.deadlines.unread

    def cut(self) -> None:
        """Close the connection at once, whatever is still to be sent."""
        if self._wire is not None:
            self._wire.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the connection, or refuse it when there are too many."""
        self._wire = cast("asyncio.Transport", transport)
        if self._connections.admit(self, self._loop.time()):
            super().connection_made(transport)
        else:
            self._wire.write(FULL)
            self._wire.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End what the connection was doing."""
        self._connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note the first byte of a request."""
        first = self._between is not Phase.HEAD and self._latest_body.is_eof()
        if first and not self._request_in_progress:
            self._turn(Phase.HEAD)
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; then the connection is idle."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._latest_body = request.content
            self._turn(Phase.IDLE)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer bad HTTP with 400 and one line in the log, without the bytes: they may hold a secret."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        log.info("%s sent bad HTTP: %s", request.remote or LOCAL, exc.message.partition(":")[0])
        answer = web.Response(status=400, text="This is not HTTP that is read here.")
        answer.force_close()
        return answer

    def _turn(self, phase: Phase) -> None:
        self._between = phase
        self._since = self._loop.time()
