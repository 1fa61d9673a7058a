"""The keys of a config and their types, from which the JSON Schema is generated (PURE)."""

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

Duration = int | float | str
#: The default address of the agents' listener.
DEFAULT_LISTEN = "127.0.0.1:8808"
DEFAULT_STORE = "sqlite:///okayed.db"
STORE_ERROR = "this must be sqlite:///path (or memory: for a trial); this version supports no other database."
Count = Annotated[int, Meta(ge=1)]
Size = int | str
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
#: The longest duration, in seconds: ten years. A later date may not be representable.
MAX_DURATION = 3650 * 86400
_OFF = re.compile(r"0(?:\.0+)?\s*[smhd]?")
_BYTES = {"": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
_SIZE = re.compile(r"(\d+)\s*([kmg]b)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")


def parse_duration(duration: Duration) -> float:
    """Return a duration (`60`, `60s`, `15m`, `1h`, `1d`) in seconds; raises `ValueError` with the remedy."""
    match = _DURATION.fullmatch(str(duration))
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{duration!r} is not a duration; write seconds, or 60s, 15m, 1h, 1d.")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > MAX_DURATION:
        raise ValueError(f"{duration!r} is too long; write at most {MAX_DURATION // 86400}d.")
    return seconds


def is_off(duration: Duration) -> bool:
    """Return whether a duration is `0` or `0s`, which turns the feature off."""
    return _OFF.fullmatch(str(duration)) is not None


def is_store(address: str) -> bool:
    """Return whether *address* is that of a store that this version supports."""
    return re.match(r"sqlite:///.|memory:$", address) is not None


def parse_size(size: Size) -> int:
    """Return a size (`1024`, `64KB`, `16MB`, `1GB`) in bytes (1 KB is 1024); raises `ValueError` with the remedy."""
    match = _SIZE.fullmatch(str(size))
    if match is None or not int(match[1]):
        raise ValueError(f"{size!r} is not a size; write bytes, or 64KB, 16MB, 1GB.")
    return int(match[1]) * _BYTES[(match[2] or "").lower()]


CategoryName = Literal["Read", "Write", "Execute", "Destructive", "Financial", "Other"]
RiskName = Literal["Low", "Medium", "High", "Critical"]
SeverityName = Literal["low", "medium", "high", "critical"]
#: The signature algorithms of a JWT: asymmetric only, never a shared secret.
AlgorithmName = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
ActionName = Literal["allow", "deny", "require_approval"]


class Options(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A mapping in the config. Its values may be secrets, so `repr` hides them."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class ToolOptions(Options, kw_only=True, frozen=True):
    """The operator's classification of one tool; it overrides the classifier."""

    category: CategoryName | None = None
    risk: RiskName | None = None
    severity: SeverityName | None = None


class OAuthOptions(Options, kw_only=True, frozen=True):
    """The OAuth client-credentials grant by which the gateway gets its token for a server (RFC 6749, section 4.4)."""

    token_url: str
    client_id: str
    client_secret: str
    scope: str | None = None
    #: The resource that the token is for (RFC 8707); default: the server's URL.
    resource: str | None = None


class ServerOptions(Options, kw_only=True, frozen=True):
    """One MCP server: a command to start, or a URL to reach."""

    command: list[str] | None = None
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str | None = None
    transport: Literal["http", "sse"] = "http"
    headers: dict[str, str] = {}
    oauth: OAuthOptions | None = None
    #: The account whose data the calls touch, as a label; an approval is valid for this account only.
    account: str | None = None
    tools: dict[str, ToolOptions] = {}
    #: The most connections for concurrent requests; streams use a separate pool.
    connections: Count = 100
    #: How long an approved call may run without an answer before it is in doubt.
    answer_within: Duration | None = None
    #: The requests that the server may send to clients.
    may_ask: list[Literal["sampling", "elicitation", "roots"]] = field(
        default_factory=lambda: ["sampling", "elicitation", "roots"]
    )


class IssuerOptions(Options, kw_only=True, frozen=True):
    """One issuer of JWTs for agents, and the claims that its tokens need."""

    issuer: str
    #: The URL of its JSON Web Key Set.
    jwks: str
    #: The accepted audiences; default: the URL of the server or of the gateway.
    audience: list[str] | None = None
    algorithms: list[AlgorithmName] = field(default_factory=lambda: ["RS256", "ES256", "EdDSA"])
    agent_claim: str = "sub"
    owner_claim: str | None = None
    scopes: list[str] = []
    #: Whether an unknown subject is accepted as an agent of that name.
    any_subject: bool = False


class AgentOptions(Options, kw_only=True, frozen=True):
    """One agent, identified by its own token or by the subject of a JWT."""

    name: str
    owner: str | None = None
    token_sha256: str | None = None
    subject: str | None = None
    #: The issuer of the subject; required if there are several.
    issuer: str | None = None
    servers: list[str] | None = None


class ApproverOptions(Options, kw_only=True, frozen=True):
    """One person who may approve calls."""

    name: str
    email: str | None = None
    slack: str | None = None
    token_sha256: str | None = None


class LimitOptions(Options, kw_only=True, frozen=True):
    """The keys of every limit: its window, its scope, and the action when it is exceeded."""

    window: Duration
    per: Literal["session", "agent", "everyone"] = "session"
    #: Whether the tools that match the rule share one limit; otherwise each has its own.
    shared: bool = False
    on_exceed: Literal["deny", "require_approval"] = "deny"


class RateLimitOptions(LimitOptions, kw_only=True, frozen=True):
    """At most `max` calls per `window`."""

    max: int


class SpendOptions(LimitOptions, kw_only=True, frozen=True):
    """The sum of the argument at `of` (`args.amount`) is at most `max` per `window`."""

    of: str
    max: float


class RuleOptions(Options, kw_only=True, frozen=True):
    """One policy rule."""

    action: ActionName | None = None
    when: str | None = None
    rate_limit: RateLimitOptions | None = None
    spend: SpendOptions | None = None
    arguments: dict[str, Any] | None = None
    approvals: int | None = None
    approvers: list[str] | None = None
    reason: str = ""
    expire_after: Duration | None = None
    approved_for: Duration | None = None


class RowOptions(RuleOptions, kw_only=True, frozen=True):
    """A row of the matrix: a rule for the tools of these classes."""

    category: list[CategoryName] | None = None
    risk: list[RiskName] | None = None
    severity: list[SeverityName] | None = None


class PolicyOptions(Options, kw_only=True, frozen=True):
    """The policy. `default` applies if no rule and no row matches."""

    default: ActionName
    matrix: list[RowOptions] = []
    tools: dict[str, RuleOptions | list[RuleOptions]] = {}
    hide: list[str] = []


class ClientOptions(Options, kw_only=True, frozen=True):
    """How long clients of one name wait, and the form of their WAITING answer."""

    #: How long a connection is kept open; default: the known timeout of this client.
    wait: Duration | None = None
    #: Whether WAITING is sent as a tool error, which models read best, or as a result.
    waiting: Literal["error", "result"] = "error"


class ApprovalOptions(Options, kw_only=True, frozen=True):
    """Approval timeouts, and how long clients are kept waiting."""

    expire_after: Duration = "15m"
    approved_for: Duration = "10m"
    #: How long a denial also answers repetitions of the call; 0: never.
    remember_denials: Duration = "10m"
    hold_for: Duration = "auto"
    #: The waiting time, or more options, by client name.
    clients: dict[str, Duration | ClientOptions] = {}
    tasks: Literal["extension", "all", "off"] = "extension"
    notify_requester: bool = False
    #: Keys that seal the requestState of clients; the first one seals. Default: a key in the store.
    state_keys: list[str] = []
    on_disconnect: Literal["keep", "cancel"] = "keep"
    requester_may_approve: bool = False


class ProxyHeaderOptions(Options, kw_only=True, frozen=True):
    """A header with the approver's email address, accepted only from these peers."""

    name: str
    from_: list[str] = field(name="from")


class LoginOptions(Options, kw_only=True, frozen=True):
    """How approvers log in to the inbox."""

    token: bool = True
    proxy_header: ProxyHeaderOptions | None = None


class SocketOptions(Options, kw_only=True, frozen=True):
    """A Unix socket with its mode and group."""

    unix: str
    #: Octal digits, such as "0660"; default: set by the umask.
    mode: str | int | None = None
    group: str | None = None


Listen = str | SocketOptions


def listen_address(listen: Listen) -> str:
    """Return the address of a listener: `host:port` or `unix:/path`."""
    return listen if isinstance(listen, str) else f"unix:{listen.unix}"


class InboxOptions(Options, kw_only=True, frozen=True):
    """The web inbox and its API."""

    listen: Listen = "127.0.0.1:8809"
    url: str | None = None
    login: LoginOptions = LoginOptions()


class SlackOptions(Options, kw_only=True, frozen=True):
    """The Slack app: Socket Mode with an app token, or signed HTTP with a signing secret."""

    bot_token: str
    channel: str
    app_token: str | None = None
    signing_secret: str | None = None
    api_url: str | None = None


class WebhookOptions(Options, kw_only=True, frozen=True):
    """A URL that gets a signed POST for each change of a held call."""

    url: str
    secret: str


class CheckpointOptions(Options, kw_only=True, frozen=True):
    """Where checkpoints of the audit trail go: a file, or a webhook with its secret."""

    file: str | None = None
    webhook: str | None = None
    secret: str | None = None


class AuditOptions(Options, kw_only=True, frozen=True):
    """Options of the audit trail."""

    #: When the events of allowed calls are written: in the background, before the answer, or never.
    allowed: Literal["post", "wait", "off"] = "post"
    #: Where checkpoints of the trail are kept outside the store.
    checkpoint: CheckpointOptions | None = None


class CapOptions(Options, kw_only=True, frozen=True):
    """Resource limits for each agent, and for all agents together."""

    #: The most unsettled calls: of all agents, and of one.
    open: Count = 10_000
    open_per_agent: Count = 100
    #: The total size of these calls.
    bytes: Size = "256MB"
    bytes_per_agent: Size = "16MB"
    #: The total size of the calls of one agent that were held within an hour.
    bytes_per_agent_hour: Size = "256MB"
    #: The most concurrent requests of one agent, and open streams.
    exchanges_per_agent: Count = 64
    streams_per_agent: Count = 256
    #: The total size of one agent's request bodies that are being read or judged.
    bodies_per_agent: Size = "32MB"


class Config(Options, kw_only=True, frozen=True):
    """The whole config."""

    listen: Listen = DEFAULT_LISTEN
    #: Additional host names of the listeners, such as a service name; loopback names are always accepted.
    hosts: list[str] = []
    #: Reverse proxies whose Forwarded and X-Forwarded-For are trusted: addresses, networks, or `unix:`.
    trusted_proxies: list[str] = []
    #: How long requests are still served after SIGTERM, while /readyz returns 503.
    drain: Duration = 0
    #: A relative path is resolved against the folder of the config.
    store: str = DEFAULT_STORE
    #: The key that seals the audit trail and the held calls; keep it apart from the store.
    store_key: str | None = None
    servers: dict[str, ServerOptions]
    #: The public URL of the agents' listener.
    url: str | None = None
    jwt: list[IssuerOptions] = []
    agents: list[AgentOptions] = []
    approvers: list[ApproverOptions] = []
    groups: dict[str, list[str]] = {}
    policy: PolicyOptions
    approvals: ApprovalOptions = ApprovalOptions()
    inbox: InboxOptions = InboxOptions()
    slack: SlackOptions | None = None
    webhooks: list[WebhookOptions] = []
    audit: AuditOptions = AuditOptions()
    limits: CapOptions = CapOptions()
    #: The action for calls whose tool definition has changed.
    pin: Literal["warn", "reask", "quarantine"] = "reask"
    #: Whether tool descriptions mention that calls need approval.
    annotate: bool = False
