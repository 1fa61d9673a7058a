"""The inbox's options, and the hosts and origins that follow from its URL."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from approvals import client_address
from approvals.client_address import TrustedProxies

if TYPE_CHECKING:
    from aiohttp import web

Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDetails:
    """The sentences of a tool's page."""

    does: str = ""
    #: The difference from the accepted definition, or "".
    changes: str = ""
    #: Why it needs a policy.
    why: tuple[str, ...] = ()
    advice: str = ""
    confidence: str = ""
    #: The number of parameters, in words, and (name, type, required, description) of those shown.
    counted: str = ""
    parameters: tuple[tuple[str, str, bool, str], ...] = ()
    #: The policy's action for a call without arguments, its rule and its terms.
    applies: tuple[str, ...] = ()
    #: (question, answer, config to paste or "").
    answers: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolView:
    """A tool in the inbox's list of tools."""

    server: str
    tool: str
    description: str = ""
    category: str
    risk: str
    severity: str
    evidence: tuple[str, ...] = ()
    #: The policy's action: allow, deny, require_approval.
    action: str
    rule: str = ""
    #: The hash of the current definition, and whether it differs from the accepted one.
    definition: str = ""
    changed: bool = False
    #: Builds the details; called only for the tool's own page.
    details: Callable[[], ToolDetails] = ToolDetails


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """The inbox's URL, sign-in methods and optional parts."""

    #: The public URL, such as `https://approvals.example.com`.
    url: str
    #: The header in which a reverse proxy names the user, and the addresses or networks of such proxies. Without
    #: addresses, the header is ignored.
    proxy_header: str = ""
    proxy_peers: tuple[str, ...] = ()
    #: The reverse proxies whose forwarding headers are trusted.
    proxies: TrustedProxies = client_address.NO_PROXIES
    #: Whether people may sign in with a token.
    token_login: bool = True
    #: Further host names, such as a service name inside a cluster.
    hosts: frozenset[str] = frozenset()
    #: Seconds between comments on an idle event stream, which keep it open and detect a closed one.
    ping: float = 15.0
    #: Event streams open at once.
    max_streams: int = 256
    slack_actions: Handler | None = None
    #: Returns the body and the content type of /metrics.
    metrics: Callable[[], tuple[bytes, str]] | None = None
    tools: Callable[[], Sequence[ToolView]] | None = None
    #: (server, tool or "", approver): accepts the current definitions and returns the changed tools.
    accept: Callable[[str, str, str], Sequence[str]] | None = None

    @property
    def secure(self) -> bool:
        """Whether the public URL uses TLS."""
        return urlsplit(self.url).scheme == "https"

    @property
    def origin(self) -> str:
        """The origin of the public URL."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}".lower()

    def origins(self, host: str) -> frozenset[str]:
        """Return the origins of the inbox's pages in a request for *host*."""
        name = urlsplit(f"//{host}").hostname
        loopback_origin = {f"http://{host}".lower()} if name in LOOPBACK or name in self.hosts else set()
        return frozenset({self.origin} | loopback_origin)

    def serves_host(self, host: str) -> bool:
        """Return whether the inbox is served under *host*, a Host header."""
        parts = urlsplit(self.url)
        try:
            given = urlsplit(f"{parts.scheme}://{host}")
            name, port = given.hostname or "", given.port
        except ValueError:
            return False
        if given.netloc != host or "@" in host:
            return False
        if name in LOOPBACK or name in self.hosts:
            return True
        default = _DEFAULT_PORTS.get(parts.scheme)
        return name == parts.hostname and (port or default) == (parts.port or default)

    def trusts(self, peer: str | None) -> bool:
        """Return whether *peer* may name the user in `proxy_header`."""
        try:
            address = ip_address(peer or "")
        except ValueError:
            return False
        return any(address in ip_network(network, strict=False) for network in self.proxy_peers)
