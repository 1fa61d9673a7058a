"""What the inbox is told when it is built, and what follows from its address."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from aiohttp import web

from approvals import client_address
from approvals.client_address import TrustedProxies

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDetails:
    """What a tool's own page says beyond the list, in sentences."""

    does: str = ""
    #: How its definition differs from the accepted one; "" when it does not.
    changes: str = ""
    #: Why it needs a policy.
    why: tuple[str, ...] = ()
    advice: str = ""
    confidence: str = ""
    #: How many parameters there are, in words, and (name, type, required, line) of each that is shown.
    counted: str = ""
    parameters: tuple[tuple[str, str, bool, str], ...] = ()
    #: What happens to a call without arguments now, by which rule, and on which terms.
    applies: tuple[str, ...] = ()
    #: (question, answer, config to paste or "").
    answers: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolView:
    """One tool as the inbox's list of tools shows it."""

    server: str
    tool: str
    description: str = ""
    category: str
    risk: str
    severity: str
    evidence: tuple[str, ...] = ()
    #: What the policy asks for it: allow, deny, require_approval.
    action: str
    rule: str = ""
    #: The hash of its definition as it is now, and whether that is not the accepted one.
    definition: str = ""
    changed: bool = False
    #: Returns the rest, which is made only for the tool that is looked at.
    facts: Callable[[], ToolDetails] = ToolDetails


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """How the inbox is reached and by whom."""

    #: What people type and links point to, such as `https://approvals.example.com`.
    url: str
    #: The header a reverse proxy names the person in, and the addresses or networks it may come from. No
    #: addresses means that the header is believed from nobody.
    proxy_header: str = ""
    proxy_peers: tuple[str, ...] = ()
    #: The reverse proxies that are believed about a client's address.
    proxies: TrustedProxies = client_address.NO_PROXIES
    #: Whether people may sign in with their token.
    token_login: bool = True
    #: More host names to answer to, such as a service's name inside a cluster.
    hosts: frozenset[str] = frozenset()
    #: Seconds between two comments that keep a quiet stream of events open and notice a closed one.
    ping: float = 15.0
    #: The most streams of events open at once.
    max_streams: int = 256
    slack_actions: Handler | None = None
    #: Returns the body and the content type of the metrics.
    metrics: Callable[[], tuple[bytes, str]] | None = None
    tools: Callable[[], Sequence[ToolView]] | None = None
    #: Accepts the present definitions of a server's tools, or of one; takes who says so, returns which.
    accept: Callable[[str, str, str], Sequence[str]] | None = None

    @property
    def secure(self) -> bool:
        """Whether people reach the inbox over TLS."""
        return urlsplit(self.url).scheme == "https"

    @property
    def origin(self) -> str:
        """The origin a browser names when a page of ours asks for something."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}".lower()

    def origins(self, host: str) -> frozenset[str]:
        """Return the origins that a page of ours may have when it was asked for as *host*."""
        name = urlsplit(f"//{host}").hostname
        plain = {f"http://{host}".lower()} if name in LOOPBACK or name in self.hosts else set()
        return frozenset({self.origin} | plain)

    def knows_host(self, host: str) -> bool:
        """Say whether *host*, as a Host header gives it, is one of ours."""
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
        """Say whether *peer* is a reverse proxy whose word on who asks is believed."""
        try:
            address = ip_address(peer or "")
        except ValueError:
            return False
        return any(address in ip_network(network, strict=False) for network in self.proxy_peers)
