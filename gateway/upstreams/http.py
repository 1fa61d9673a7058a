"""An MCP server over Streamable HTTP. Each server has its own connections and credentials.

Redirects are not followed: a 307 would send the call and the credentials elsewhere. A POST is never retried.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.errors import GatewayError, NotSentError
from gateway.upstreams import Receive
from gateway.upstreams.credentials import Credentials
from gateway.upstreams.http1.address import Address, parse_address
from gateway.upstreams.http1.connection import ServerConnection
from gateway.upstreams.http1.pool import ConnectionPool
from gateway.upstreams.http1.request_head import HeadBuilder
from gateway.upstreams.reply import EVENTS, JSON, Reply
from gateway.wire import protocol

#: The headers of a request that its own headers may replace, by verb.
DEFAULT_HEADERS: Mapping[str, Mapping[str, str]] = {
    "POST": {"content-type": JSON, "accept": f"{JSON}, {EVENTS}"},
    "GET": {"accept": EVENTS},
    "DELETE": {"accept": EVENTS},
}


@dataclass(frozen=True, slots=True)
class ServerConnections:
    """The connections to one server. Streams have their own, so that they cannot use up those for requests."""

    requests: ConnectionPool
    streams: ConnectionPool


class ConnectionPools:
    """The connections to each server, closed together at shutdown.

    A server that is removed from the config keeps its connections until then: calls may still run on them.
    """

    def __init__(self) -> None:
        self._pools: dict[tuple[str, int], ServerConnections] = {}

    def of(self, server: str, connections: int) -> ServerConnections:
        """Return the connections to a server, at most *connections* of them for requests."""
        if (server, connections) not in self._pools:
            self._pools[server, connections] = ServerConnections(
                ConnectionPool(connections), ConnectionPool()
            )
        return self._pools[server, connections]

    async def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.requests.close()
            await pool.streams.close()


class ServerEndpoint:
    """One URL of a server, with the credentials for it."""

    def __init__(self, address: Address, credentials: Credentials) -> None:
        self.address = address
        self._credentials = credentials
        #: The builders of request heads with the current credentials, by verb.
        self._builders: dict[str, HeadBuilder] = {}

    async def send(self, pool: ConnectionPool, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; raises errors as `Upstream.send` does."""
        builder = self.head_builder(verb, await self._credentials.headers())
        head = builder.build(headers, len(body))
        connection = await pool.acquire(self.address)
        return self.check(await _exchange(connection, head, body), builder)

    def current_head_builder(self, verb: str) -> HeadBuilder | None:
        """Return the builder without waiting; None if a token has to be fetched first, or for a bad header."""
        own = self._credentials.current()
        try:
            return None if own is None else self.head_builder(verb, own)
        except NotSentError:
            return None

    def head_builder(self, verb: str, own: Mapping[str, str]) -> HeadBuilder:
        """Return the builder of request heads with these credentials."""
        builder = self._builders.get(verb)
        if builder is None or builder.credentials is not own:
            builder = self._builders[verb] = HeadBuilder(verb, self.address, DEFAULT_HEADERS[verb], own)
        return builder

    def check(self, reply: Reply, builder: HeadBuilder) -> Reply:
        """Return the reply; a 401 is reported to the credentials."""
        if reply.status == 401:
            self._credentials.mark_refused(builder.credentials)
        return reply


async def _exchange(connection: ServerConnection, head: bytes, body: bytes) -> Reply:
    """Do one exchange on a reserved connection; if this is cancelled, the connection is closed."""
    answer: asyncio.Future[Reply | GatewayError] = asyncio.get_running_loop().create_future()

    def receive(reply: Reply | GatewayError) -> None:
        if not answer.done():
            answer.set_result(reply)
        elif isinstance(reply, Reply):
            reply.close()

    connection.start(head, body, receive)
    try:
        received = await answer
    except asyncio.CancelledError:
        if answer.cancelled():
            connection.cancel(receive)
        elif isinstance(received := answer.result(), Reply):
            received.close()
        raise
    if isinstance(received, GatewayError):
        raise received
    return received


class HttpUpstream:
    """One server behind one URL."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        requests: ConnectionPool,
        streams: ConnectionPool | None = None,
    ) -> None:
        """*streams* carries the long-lived streams; *requests* does if it is omitted. Raises `ValueError`."""
        self._endpoint = ServerEndpoint(parse_address(url), credentials)
        self._origin = self._endpoint.address.origin
        self._requests = requests
        self._streams = streams or requests

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; see `Upstream.send`."""
        pool = self._streams if protocol.is_subscription(verb, headers) else self._requests
        return await self._endpoint.send(pool, verb, body, headers)

    def line(self) -> "HttpLine | None":
        """Reserve an idle connection; None if there is none, or if a token has to be fetched first."""
        builder = self._endpoint.current_head_builder("POST")
        if builder is None or (connection := self._requests.reserve(self._origin)) is None:
            return None
        return HttpLine(self._endpoint, builder, self._requests, connection)

    def knows(self, _headers: Mapping[str, str], /) -> None:
        """Return None: the server keeps its sessions itself."""

    async def close(self) -> None:
        """Do nothing: the application owns the connections."""


class HttpLine:
    """A reserved connection to an HTTP server; see `Line`. After the reply, its `close` cancels the exchange."""

    __slots__ = ("_builder", "_connection", "_endpoint", "_pool", "_receive")
    _receive: Receive

    def __init__(
        self,
        endpoint: ServerEndpoint,
        builder: HeadBuilder,
        pool: ConnectionPool,
        connection: ServerConnection,
    ) -> None:
        self._endpoint = endpoint
        self._builder = builder
        self._pool = pool
        self._connection = connection

    def post(self, body: bytes, headers: Mapping[str, str], receive: Receive) -> None:
        """See `Line.post`."""
        try:
            head = self._builder.build(headers, len(body))
        except NotSentError as error:
            self.release()
            receive(error)
            return
        self._receive = receive
        self._connection.start(head, body, self._check)

    def release(self) -> None:
        """See `Line.release`."""
        self._pool.release(self._connection)

    def abandon(self) -> None:
        """See `Line.abandon`."""
        self._connection.cancel(self._check)

    def _check(self, reply: Reply | GatewayError) -> None:
        self._receive(self._endpoint.check(reply, self._builder) if isinstance(reply, Reply) else reply)
