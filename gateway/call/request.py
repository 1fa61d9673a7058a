"""What a front hands to the proxy: one exchange, and the tool call that it asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from approvals import digest
from approvals.model import ToolCall
from gateway.auth.agents import Agent
from gateway.call import envelope
from gateway.call.delivered import SessionKey
from gateway.call.sessions import Session
from gateway.policy.limits import LimitUser
from gateway.upstreams import Upstream
from gateway.upstreams.reply import EVENTS
from gateway.wire import frames, protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One exchange as a front received it. `pairs` are the headers in order, names in lower case."""

    agent: Agent
    server: str
    verb: str
    body: bytes
    pairs: tuple[tuple[str, str], ...]

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by name. The revision of 2026-07-28 has no sessions, so what claims to be the id of one is left out."""
        found = dict(self.pairs)
        if found.get("mcp-protocol-version") in protocol.MODERN:
            found.pop(protocol.SESSION_HEADER, None)
        return found

    @property
    def takes_events(self) -> bool:
        """Whether the client can read a stream of events."""
        accepted = self.headers.get("accept", "*/*")
        return EVENTS in accepted or "*/*" in accepted


def place(exchange: Exchange, session: Session | None) -> SessionKey:
    """Return the session that the agent opened, or the agent where there is none: an id that is only claimed says nothing."""
    agent = exchange.agent.name
    named = exchange.headers[protocol.SESSION_HEADER] if session else agent
    return SessionKey(agent, exchange.server, named)


@dataclass(frozen=True, kw_only=True)
class CallRequest:
    """One tool call as an agent asks for it now: by which exchange, of which server, in which session and round.

    It has no slots, because `call` and `key` are kept: for a large call each takes longer than all else.
    """

    exchange: Exchange
    upstream: Upstream
    frame: frames.CallFrame
    #: What the agent said when it opened its session; None where the revision has none.
    session: Session | None = None
    #: How often this call has come again with a sealed state.
    round: int = 0
    #: Headers that are made from the arguments, see `mirrors.made`.
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def era(self) -> protocol.Era:
        """The era of the request."""
        return protocol.era(self.exchange.headers, self.frame)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers with which it goes to the server."""
        crossing = {**protocol.request_headers(self.exchange.headers, self.frame), **self.params}
        return {name: value for name, value in crossing.items() if name != "last-event-id"}

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments, read."""
        found: Mapping[str, Any] = self.frame.params.get("arguments", {})
        return found

    @cached_property
    def call(self) -> ToolCall:
        """The call as it is judged, shown and stored."""
        agent = self.exchange.agent
        return ToolCall(
            agent=agent.name,
            owner=agent.owner,
            session=self.place.session,
            server=self.exchange.server,
            tool=self.frame.name,
            arguments=self.frame.arguments,
            beside=envelope.beside(self.frame),
            along=envelope.packed(self.frame, self.headers, self.opening),
        )

    @cached_property
    def key(self) -> str:
        """What the same call asked again shares with this one."""
        return digest.key(self.call, envelope.more(self.frame))

    @property
    def scope(self) -> LimitUser:
        """Whose uses of a limit this call counts to."""
        agent = self.exchange.agent.name
        return LimitUser(
            agent=agent, session=self.place.session, server=self.exchange.server, tool=self.frame.name
        )

    @property
    def place(self) -> SessionKey:
        """The session in which it is asked."""
        return place(self.exchange, self.session)

    @property
    def opening(self) -> bytes:
        """The params of the initialize that opened its session, as JSON; b"" where there is none."""
        return self.session.opening if self.session else b""

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """What the client declares: with this request, or when it opened its session."""
        return self.session.capabilities if self.session else protocol.capabilities(self.frame.params)

    @property
    def client(self) -> str:
        """The client's name for itself, or ""; believed for patience only."""
        named = protocol.client_name(self.frame.params)
        return named or (self.session.client if self.session else "")

    @property
    def fronted(self) -> bool:
        """Whether a front of our own speaks for the client, which asks for a held call again when its connection is cut."""
        return protocol.FRONT_HEADER in self.exchange.headers

    @property
    def resumes(self) -> bool:
        """Whether a client of this revision comes back for the rest of a stream that it was given an id for."""
        headers = self.exchange.headers
        revision = headers.get("mcp-protocol-version")
        return revision == protocol.HANDSHAKE[-1] and not self.fronted
