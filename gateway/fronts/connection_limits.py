"""Limits on HTTP connections: their number, and how slow a peer may be."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

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


class PeerTimer:
    """Tracks how long a connection has been waiting for its peer."""

    __slots__ = ("_read_at", "_since", "_unsent", "phase")

    def __init__(self, now: float) -> None:
        #: The phase while no request is in progress.
        self.phase = Phase.NEW
        self._since = self._read_at = now
        #: How many bytes were unsent at the last check.
        self._unsent = 0

    def enter(self, phase: Phase, now: float) -> None:
        """Start the time limit of *phase*."""
        self.phase = phase
        self._since = now

    def is_overdue(self, phase: Phase, received: int, deadlines: Deadlines, now: float) -> bool:
        """Return whether *phase* has exceeded its limit after *received* bytes of a body."""
        limit = deadlines.limit_for(phase, received)
        return limit is not None and now > self._since + limit

    def is_not_reading(self, unsent: int, deadlines: Deadlines, now: float) -> bool:
        """Return whether the peer has stopped reading a response, of which *unsent* bytes wait."""
        if unsent and (unsent < self._unsent or not self._unsent):
            self._read_at = now
        self._unsent = unsent
        return unsent > 0 and now > self._read_at + deadlines.unread


class TimedConnection(Protocol):
    """A connection whose peer has to keep the deadlines."""

    @property
    def phase(self) -> Phase:
        """The current phase."""

    def is_overdue(self, now: float) -> bool:
        """Return whether the peer has exceeded a time limit."""

    def abort(self) -> None:
        """Close the connection at once; unsent data is lost."""


class Connections:
    """The open connections of one listener: at most *most*, none with a slow peer."""

    def __init__(self, name: str, most: int, deadlines: Deadlines | None = None) -> None:
        self.deadlines = deadlines or Deadlines()
        self._most = most
        self._open: set[TimedConnection] = set()
        self._checked_at = 0.0
        self._slow = _LogCounter(f"{name}: closed connections of slow peers (%d since the start)")
        self._refused = _LogCounter(
            f"{name}: refused connections beyond the limit of {most} (%d since the start)"
        )

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[TimedConnection]:
        return iter(self._open)

    def admit(self, connection: TimedConnection, now: float) -> bool:
        """Add a new connection; False at the limit."""
        if len(self._open) >= self._most:
            self._refused.count(now)
            return False
        self._open.add(connection)
        return True

    def discard(self, connection: TimedConnection) -> None:
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
