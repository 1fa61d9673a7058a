"""Whose MCP session is whose. A session id is a handle, not a credential: used by another agent it is unknown."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway import protocol
from gateway.agents import Agent
from gateway.errors import UnknownSessionError
from gateway.upstreams import Reply

MAX_SESSIONS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What an agent said when it opened the session."""

    agent: str
    #: The client's name for itself; believed for patience only.
    client: str = ""
    #: The params of the initialize that opened it, as JSON, and the capabilities in it.
    opening: bytes = b""
    capabilities: Mapping[str, Any] = field(default_factory=dict)


class Sessions:
    """The open sessions of all agents, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()

    def opened(self, agent: Agent, server: str, reply: Reply, initialize: Mapping[str, Any]) -> None:
        """Remember the session that *reply* to an initialize request opens, if it does."""
        if session_id := reply.header("mcp-session-id"):
            info = initialize.get("clientInfo")
            name = info.get("name") if isinstance(info, dict) else None
            declared = initialize.get("capabilities")
            self._sessions[server, session_id] = Session(
                agent=agent.name,
                client=name if isinstance(name, str) else "",
                opening=msgspec.json.encode(initialize),
                capabilities=declared if isinstance(declared, dict) else {},
            )
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def check(self, agent: Agent, server: str, headers: Mapping[str, str]) -> Session | None:
        """Return the session that the headers name; raises `UnknownSessionError` unless *agent* opened it here."""
        session_id = headers.get("mcp-session-id")
        if session_id is None or headers.get("mcp-protocol-version") in protocol.MODERN:
            return None
        session = self._sessions.get((server, session_id))
        if session is None or session.agent != agent.name:
            raise UnknownSessionError
        self._sessions.move_to_end((server, session_id))
        return session

    def closed(self, server: str, headers: Mapping[str, str]) -> None:
        """Forget the session that the headers name."""
        self._sessions.pop((server, headers.get("mcp-session-id", "")), None)
