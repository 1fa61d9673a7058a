"""MCP sessions and the agents that own them. A session id is not a credential: to another agent it is unknown."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import msgspec

from approvals.model import AgentSession
from approvals.store import StateStore
from gateway.auth.agents import Agent
from gateway.errors import UnknownSessionError
from gateway.upstreams.reply import Reply
from gateway.wire import protocol

#: The most sessions kept in memory; the store has them all.
MAX_SESSIONS = 10_000
#: The most bytes of the params of initialize; they are stored for the life of the session.
MAX_OPENING = 64 << 10


@dataclass(slots=True, kw_only=True)
class Session:
    """One session. `opening` keeps the client's initialize, to reopen the session with."""

    agent: str
    #: The params of the client's initialize, as JSON.
    opening: bytes = b""
    #: The server's id for the session after it was reopened; "" while both sides use the client's id.
    upstream_id: str = ""
    #: When the server last answered in it, by the gateway's clock.
    answered_at: float = -inf
    #: Held while a task reopens the upstream session.
    reopening: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: The client's name for itself; used only to choose how long it is kept waiting.
    client: str = field(init=False)
    #: The capabilities that the client declared.
    capabilities: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Read the client's name and capabilities from its initialize."""
        params = msgspec.json.decode(self.opening or b"{}")
        info, declared = params.get("clientInfo"), params.get("capabilities")
        name = info.get("name") if isinstance(info, dict) else None
        self.client = name if isinstance(name, str) else ""
        self.capabilities = declared if isinstance(declared, dict) else {}


class Sessions:
    """The open sessions of all agents. The store has them too, so they survive a restart of the gateway."""

    def __init__(self, store: StateStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()

    async def open(self, agent: Agent, server: str, reply: Reply, initialize: Mapping[str, Any]) -> None:
        """Store the session that the *reply* to initialize opens, if any, before the client learns of it."""
        if session_id := reply.header(protocol.SESSION_HEADER):
            opening = msgspec.json.encode(initialize)
            await self._store.save_session(
                AgentSession(
                    server=server, id=session_id, agent=agent.name, opening=opening, at=self._clock()
                )
            )
            self._keep(server, session_id, Session(agent=agent.name, opening=opening))

    async def find(self, agent: Agent, server: str, session_id: str | None) -> Session | None:
        """Return a session, None without an id; raises `UnknownSessionError` unless *agent* opened it here."""
        if session_id is not None and (server, session_id) not in self._sessions:
            await self._recall(server, session_id)
        return self.find_at_once(agent, server, session_id)

    def find_at_once(self, agent: Agent, server: str, session_id: str | None) -> Session | None:
        """Return a session like `find`; raises `UnknownSessionError` also if only the store has it."""
        if session_id is None:
            return None
        session = self._sessions.get((server, session_id))
        if session is None or session.agent != agent.name:
            raise UnknownSessionError
        self._sessions.move_to_end((server, session_id))
        return session

    async def _recall(self, server: str, session_id: str) -> None:
        stored = await self._store.find_session(server, session_id)
        # Two requests at once may both read the store; they share one session.
        if stored is not None and (server, session_id) not in self._sessions:
            self._keep(server, session_id, Session(agent=stored.agent, opening=stored.opening))

    def _keep(self, server: str, session_id: str, session: Session) -> None:
        self._sessions[server, session_id] = session
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def close(self, server: str, headers: Mapping[str, str]) -> None:
        """Forget the session that the headers name."""
        session_id = headers.get(protocol.SESSION_HEADER, "")
        self._sessions.pop((server, session_id), None)
        self._store.delete_session(server, session_id)
