"""The parts of a tools/call request that its client's wait needs until it ends.

Thousands of requests may wait, so their bodies and decoded params are not kept: the call itself is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from gateway.call import envelope
from gateway.call.delivered import SessionKey
from gateway.call.request import CallRequest
from gateway.hold.cancellations import RequestKey
from gateway.hold.patience import ClientKey
from gateway.upstreams import Upstream
from gateway.wire import frames, protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRequest:
    """A request whose client waits for a held call."""

    #: Its id, and the key by which its client cancels it.
    key: RequestKey
    session_key: SessionKey
    #: The client's own `clientInfo` name.
    client: str
    tool: str
    era: protocol.Era
    progress_token: frames.Id | None
    #: The members of params that belong to this exchange and not to the call, as their exact bytes.
    members: tuple[tuple[str, bytes], ...]
    upstream: Upstream
    #: The headers to send to the server with the call.
    headers: Mapping[str, str]
    #: The params of the initialize that opened its session, as JSON; b"" without a session.
    opening: bytes
    #: How many input_required rounds the call has had.
    round: int
    accepts_events: bool
    #: Whether the client supports elicitation by URL.
    opens_links: bool

    @classmethod
    def read(cls, request: CallRequest) -> "WaitingRequest":
        """Keep the parts of a request."""
        return cls(
            key=request_key(request.exchange.agent.name, request.exchange.server, request.exchange.headers, request.frame.id),
            session_key=request.session_key,
            client=request.client,
            tool=request.frame.name,
            era=request.era,
            progress_token=request.frame.progress_token,
            members=envelope.exchange_members(request.frame),
            upstream=request.upstream,
            headers=_share_headers(tuple(request.headers.items())),
            opening=request.opening,
            round=request.round,
            accepts_events=request.exchange.accepts_events,
            opens_links=protocol.supports_url_elicitation(request.capabilities),
        )  # fmt: skip

    @property
    def id(self) -> frames.Id:
        """The JSON-RPC id."""
        return self.key.id

    @property
    def server(self) -> str:
        """The server's name."""
        return self.key.server

    @property
    def client_key(self) -> ClientKey:
        """The agent and its client."""
        return ClientKey(self.key.agent, self.client)


def request_key(agent: str, server: str, headers: Mapping[str, str], request_id: frames.Id) -> RequestKey:
    """Return the key of a request with these headers."""
    session = headers.get(protocol.SESSION_HEADER, "")
    return RequestKey(agent=agent, server=server, session=session, id=request_id)


@lru_cache(maxsize=1024)
def _share_headers(pairs: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """Return the headers as one object for all requests with equal ones."""
    return dict(pairs)
