"""The front for plain requests: the state that its connections share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from gateway.auth.agents import Agent, AuthenticationFailed
from gateway.fronts import header_checks
from gateway.fronts.connection_limits import Connections, PeerTimer, TimedConnection
from gateway.fronts.endpoint import Endpoint
from gateway.fronts.known_heads import KnownHead, KnownHeads
from gateway.upstreams.reply import Reply

#: Builds the protocol that takes over a connection and its timer.
MakeSuccessor = Callable[[PeerTimer], Awaitable[asyncio.Protocol]]


class ServedConnection(TimedConnection, Protocol):
    """An open connection of this front."""

    def finish(self) -> None:
        """Close the connection after the exchange in progress."""


class PlainFront:
    """The connections that serve plain requests, their known heads and their tasks."""

    def __init__(
        self,
        endpoint: Endpoint,
        connections: Connections,
        make_successor: MakeSuccessor,
        close_seconds: float,
    ) -> None:
        """*close_seconds* is how long running exchanges get when the front closes."""
        self.endpoint = endpoint
        self.connections = connections
        self.make_successor = make_successor
        self.heads = KnownHeads(endpoint.hosts)
        self.is_closing = False
        self._close_seconds = close_seconds
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._open: set[ServedConnection] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._tasks: set[asyncio.Task[None]] = set()

    # Connections and tasks.

    def admit(self, connection: ServedConnection) -> bool:
        """Add a new connection; False at the limit."""
        admitted = self.connections.admit(connection, self.now())
        if admitted:
            self._open.add(connection)
            self._all_closed.clear()
        return admitted

    def discard(self, connection: ServedConnection) -> None:
        """Remove a connection that was closed, or that another front takes over."""
        self.connections.discard(connection)
        self._open.discard(connection)
        if not self._open:
            self._all_closed.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task, and keep it until it ends."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Close every connection after its exchange; after `close_seconds`, at once."""
        self.is_closing = True
        for connection in [*self._open]:
            connection.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._close_seconds):
                await self._all_closed.wait()
        for connection in [*self._open]:
            connection.abort()
        await self._all_closed.wait()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # Agents.

    def authenticate(self, known: KnownHead, transport: asyncio.Transport) -> Agent | Reply | None:
        """Return the agent whose token is in a head, or the refusal; None for a token that takes time to verify."""
        agents = self.endpoint.policy.agents()
        if known.agents is agents:
            return known.content_refusal or known.agent
        try:
            agent = agents.authenticate_at_once(_authorization(known), known.server)
        except AuthenticationFailed as refused:
            return self._refuse_token(refused, known, transport)
        if agent is None:
            return None
        known.agents, known.agent = agents, agent
        self.heads.keep(known)
        return known.content_refusal or agent

    async def verify(self, known: KnownHead, transport: asyncio.Transport) -> Agent | Reply:
        """Return the agent whose JWT is in a head, or the refusal."""
        try:
            agent = await self.endpoint.policy.agents().authenticate(_authorization(known), known.server)
        except AuthenticationFailed as refused:
            return self._refuse_token(refused, known, transport)
        self.heads.keep(known)
        return known.content_refusal or agent

    def _refuse_token(
        self, refused: AuthenticationFailed, known: KnownHead, transport: asyncio.Transport
    ) -> Reply:
        return self.endpoint.refuse_token(refused, _remote(transport), known.head.pairs)


def _authorization(known: KnownHead) -> list[str]:
    return header_checks.list_values(known.head.pairs, "authorization")


def _remote(transport: asyncio.Transport) -> str | None:
    """Return the peer's address; None or "" for a Unix socket."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple | list) else peer
