"""A pool of connections to one server, with a limit."""

import asyncio
import socket
import ssl
from collections import deque
from functools import cache, partial
from typing import Any, Self

import aiohappyeyeballs

from gateway.errors import NotSentError
from gateway.upstreams.http1.address import Address
from gateway.upstreams.http1.connection import ServerConnection

#: Seconds to get a connection, new or from the pool. An answer has no time limit: the server may wait for a person.
CONNECT_SECONDS = 10.0
#: Seconds an idle connection is kept. Common servers close theirs after 5 s; a call must not be sent on a connection
#: that is about to close.
KEEP_ALIVE_SECONDS = 4.0
#: The most connections to one server that carry long-lived streams.
MAX_STREAMS = 1000
#: TCP keepalive by socket option: seconds before the first probe and between probes, and the number of probes.
#: Without it the gateway would wait forever for a server that vanished. The names differ between platforms.
KEEPALIVE_OPTIONS = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
#: Seconds after which the next address of a host is tried as well (RFC 8305, section 5).
HAPPY_EYEBALLS_DELAY = 0.25
CLOSED = "The connections to the server are closed; nothing was sent."


class ConnectionPool:
    """At most *connections* connections in use. Requests beyond them wait in the order in which they came."""

    def __init__(
        self, connections: int = MAX_STREAMS, *, path: str = "", context: ssl.SSLContext | None = None
    ) -> None:
        """*path* is a Unix socket that takes the place of every address; *context* replaces the default TLS context."""
        self._loop = asyncio.get_running_loop()
        self._unused = connections
        self._path = path
        self._context = context
        #: Idle connections by origin, the longest idle first.
        self._idle: dict[str, deque[ServerConnection]] = {}
        self._queue: deque[asyncio.Future[None]] = deque()
        self._connections: set[ServerConnection] = set()
        self._expiry: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_lost = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Return the pool, which is closed at the end."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    def reserve(self, origin: str) -> ServerConnection | None:
        """Reserve an idle connection; None if there is none or the limit is reached."""
        if not self._unused or (connection := self._take_idle(origin)) is None:
            return None
        self._unused -= 1
        return connection

    async def acquire(self, address: Address) -> ServerConnection:
        """Reserve a connection, and open it if none is idle; raises `NotSentError`."""
        if connection := self.reserve(address.origin):
            return connection
        queued = True
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._wait_for_turn()
                queued = False
                try:
                    return self._take_idle(address.origin) or await self._open(address)
                except BaseException:
                    self._pass_on_turn()
                    raise
        except TimeoutError as error:
            raise NotSentError(_timeout_message(queued=queued)) from error

    def release(self, connection: ServerConnection) -> None:
        """Take back a connection that was reserved and not used."""
        if connection.is_open:
            self._take_back(connection)

    async def close(self) -> None:
        """Close all connections. Exchanges on them fail, and so do requests in the queue."""
        self._closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        for waiting in self._queue:
            if not waiting.done():
                waiting.set_exception(NotSentError(CLOSED))
        if self._connections:
            for connection in [*self._connections]:
                connection.close()
            await self._all_lost.wait()

    def _take_back(self, connection: ServerConnection) -> None:
        """Take back a connection that can serve another exchange."""
        connection.reserved = False
        connection.idle_since = self._loop.time()
        if (idle := self._idle.get(connection.origin)) is None:
            idle = self._idle[connection.origin] = deque()
        idle.append(connection)
        if self._expiry is None:
            self._expiry = self._loop.call_later(KEEP_ALIVE_SECONDS, self._close_expired)
        self._pass_on_turn()

    def _take_idle(self, origin: str) -> ServerConnection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_open and not self._is_expired(connection):
                connection.reserved = True
                return connection
            connection.close()
        return None

    async def _wait_for_turn(self) -> None:
        if self._closed:
            raise NotSentError(CLOSED)
        if self._unused:
            self._unused -= 1
            return
        turn = self._loop.create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and not turn.exception():
                self._pass_on_turn()
            elif turn in self._queue:  # otherwise it was skipped since its request was cancelled
                self._queue.remove(turn)
            raise

    def _pass_on_turn(self) -> None:
        """Let the first request in the queue use a connection."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._unused += 1

    async def _open(self, address: Address) -> ServerConnection:
        tls = self._tls(address) if address.scheme == "https" else {}
        protocol = partial(
            ServerConnection, address.origin, self._take_back, self._forget, self._loop.call_soon
        )
        try:
            if self._path:
                _, connection = await self._loop.create_unix_connection(protocol, self._path, **tls)
            else:
                opened = await self._connect_socket(address)
                _, connection = await self._loop.create_connection(protocol, sock=opened, **tls)
        except (OSError, UnicodeError) as error:  # a label of the host name is empty or too long
            why = getattr(error, "strerror", None) or "no answer"
            raise NotSentError(f"The server could not be reached ({why}).") from error
        if self._closed or not connection.is_open:
            connection.close()
            raise NotSentError
        self._connections.add(connection)
        return connection

    async def _connect_socket(self, address: Address) -> socket.socket:
        found = await self._loop.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        return await aiohappyeyeballs.start_connection(
            found, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY, socket_factory=_create_socket
        )

    def _tls(self, address: Address) -> dict[str, Any]:
        return {
            "ssl": self._context or _default_context(),
            "server_hostname": address.host.rstrip("."),
        }

    def _forget(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended; before `acquire` has returned it, it was not known."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        if connection.reserved:
            self._pass_on_turn()
        elif connection in (idle := self._idle[connection.origin]):
            idle.remove(connection)
        if self._closed and not self._connections:
            self._all_lost.set()

    def _close_expired(self) -> None:
        """Close the connections that have been idle for too long; one timer serves all of them."""
        self._expiry = None
        for idle in self._idle.values():
            while idle and self._is_expired(idle[0]):
                idle.popleft().close()
        if oldest := [idle[0].idle_since for idle in self._idle.values() if idle]:
            self._expiry = self._loop.call_at(min(oldest) + KEEP_ALIVE_SECONDS, self._close_expired)

    def _is_expired(self, connection: ServerConnection) -> bool:
        return self._loop.time() - connection.idle_since >= KEEP_ALIVE_SECONDS


def _timeout_message(*, queued: bool) -> str:
    waited = f"{CONNECT_SECONDS:.0f} s"
    if queued:
        return (
            f"All connections to the server have been in use for {waited}; nothing was sent. Try again later."
        )
    return f"The server could not be reached (no connection within {waited})."


def _create_socket(address: aiohappyeyeballs.AddrInfoType) -> socket.socket:
    """Create a socket that sends small requests at once, with TCP keepalive."""
    created = socket.socket(*address[:3])
    created.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    created.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in KEEPALIVE_OPTIONS.items():
        if hasattr(socket, name):
            created.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return created


@cache
def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
