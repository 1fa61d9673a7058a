"""A tool call request, and the exchange that carries it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

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


@dataclass(frozen=True, slots=True, repr=False)
class RequestHead:
    """The headers of a request, read once. A front shares one head among requests whose heads are equal.

    It may contain a token, so its `repr` is the default one.
    """

    #: The headers in order, names in lower case.
    pairs: tuple[tuple[str, str], ...] = ()
    #: The headers by name. Revision 2026-07-28 has no sessions, so a session id sent with it is dropped.
    headers: Mapping[str, str] = field(init=False)
    mcp: protocol.McpHeaders = field(init=False)
    #: The headers that are forwarded to the server; and those of a tool call, which never resumes a stream.
    forwarded: Mapping[str, str] = field(init=False)
    forwarded_with_call: Mapping[str, str] = field(init=False)
    #: The session that the request names, or None.
    session_id: str | None = field(init=False)
    #: Whether the client accepts an event stream.
    accepts_events: bool = field(init=False)
    #: Whether our stdio front sent it. That front repeats a held call when its connection breaks.
    from_our_front: bool = field(init=False)

    def __post_init__(self) -> None:
        """Read the headers once: every step of the call path uses them."""
        headers = dict(self.pairs)
        if headers.get("mcp-protocol-version") in protocol.MODERN:
            headers.pop(protocol.SESSION_HEADER, None)
        forwarded = protocol.forwarded_headers(headers)
        accepted = headers.get("accept", "*/*")
        read = {
            "headers": headers,
            "mcp": protocol.McpHeaders.read(self.pairs),
            "forwarded": forwarded,
            "forwarded_with_call": {
                name: value for name, value in forwarded.items() if name != "last-event-id"
            },
            "session_id": headers.get(protocol.SESSION_HEADER),
            "accepts_events": EVENTS in accepted or "*/*" in accepted,
            "from_our_front": protocol.FRONT_HEADER in headers,
        }
        for name, value in read.items():
            object.__setattr__(self, name, value)


class Exchange(msgspec.Struct, kw_only=True, eq=False):
    """One HTTP request of an agent, or one frame on stdio."""

    agent: Agent
    server: str
    verb: str
    body: bytes
    head: RequestHead
    #: The frame in the body, once it is decoded.
    decoded: frames.Frame | frames.FrameError | None = None

    def decode(self) -> frames.Frame:
        """Return the frame in the body, which is decoded once; raises `FrameError`."""
        if self.decoded is None:
            self.decoded = _decode(self.body)
        if isinstance(self.decoded, frames.FrameError):
            raise self.decoded
        return self.decoded

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by name; see `RequestHead.headers`."""
        return self.head.headers

    @property
    def accepts_events(self) -> bool:
        """Whether the client accepts an event stream."""
        return self.head.accepts_events


def _decode(body: bytes) -> frames.Frame | frames.FrameError:
    try:
        return frames.decode(body)
    except frames.FrameError as error:
        return error


def session_key(exchange: Exchange, session: Session | None) -> SessionKey:
    """Return the key of the agent's session; without an opened session, the agent's name stands for its id."""
    agent = exchange.agent.name
    return SessionKey(agent, exchange.server, (exchange.head.session_id or agent) if session else agent)


class CallRequest(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One tools/call request: its frame, server, session and round.

    `call` and `key` are cached: for a large call they are expensive.
    """

    exchange: Exchange
    upstream: Upstream
    frame: frames.CallFrame
    era: protocol.Era
    #: The headers to send to the server with the call.
    headers: Mapping[str, str]
    #: The session in which it was sent; None if the agent has opened none.
    session: Session | None = None
    #: How many input_required rounds this call has had.
    round: int = 0

    @classmethod
    def read(
        cls, exchange: Exchange, upstream: Upstream, frame: frames.CallFrame, session: Session | None,
        *, param_headers: Mapping[str, str] | None = None,
    ) -> "CallRequest":  # fmt: skip
        """Read a request from its exchange. *param_headers* are the Mcp-Param headers built from its arguments."""
        era = protocol.era(exchange.headers, frame)
        sent = protocol.request_headers(era, exchange.head.forwarded_with_call, frame)
        if param_headers:
            sent = {**sent, **param_headers}
        return cls(exchange=exchange, upstream=upstream, frame=frame, era=era, headers=sent, session=session)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments, decoded."""
        arguments: Mapping[str, Any] = self.frame.params.get("arguments", {})
        return arguments

    @cached_property
    def call(self) -> ToolCall:
        """The call as it is judged, shown and stored."""
        agent = self.exchange.agent
        return ToolCall(
            agent=agent.name,
            owner=agent.owner,
            session=self.session_key.session,
            server=self.exchange.server,
            tool=self.frame.name,
            arguments=self.frame.arguments,
            extra_params=envelope.extra_params(self.frame),
            envelope=envelope.pack(self.frame, self.headers, self.opening),
        )

    @cached_property
    def key(self) -> str:
        """The key that repeats of the same call share."""
        return digest.key(self.call, envelope.continuation_params(self.frame))

    @property
    def limit_user(self) -> LimitUser:
        """The agent, session, server and tool that rate limits count this call for."""
        agent = self.exchange.agent.name
        return LimitUser(
            agent=agent, session=self.session_key.session, server=self.exchange.server, tool=self.frame.name
        )

    @property
    def session_key(self) -> SessionKey:
        """The key of its session."""
        return session_key(self.exchange, self.session)

    @property
    def opening(self) -> bytes:
        """The params of the initialize that opened its session, as JSON; b"" without a session."""
        return self.session.opening if self.session else b""

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """The capabilities that the client declares with this request, or declared when it opened its session."""
        return self.session.capabilities if self.session else protocol.capabilities(self.frame.params)

    @property
    def client(self) -> str:
        """The client's name for itself, or ""; used only to choose how long it is kept waiting."""
        name = protocol.client_name(self.frame.params)
        return name or (self.session.client if self.session else "")

    @property
    def from_our_front(self) -> bool:
        """Whether our stdio front sent it. That front repeats a held call when its connection breaks."""
        return self.exchange.head.from_our_front

    @property
    def resumes(self) -> bool:
        """Whether clients of this revision resume a stream with Last-Event-ID."""
        revision = self.exchange.headers.get("mcp-protocol-version")
        return revision == protocol.HANDSHAKE[-1] and not self.from_our_front
