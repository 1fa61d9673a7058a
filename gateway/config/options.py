"""The config's shape: what may be written where, as types. The JSON Schema that editors and the check use is made
from these, and so are the values that the rest of the program reads (PURE).
"""

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

Duration = int | float | str
#: Where agents find the gateway when the config does not say.
DEFAULT_LISTEN = "127.0.0.1:8808"
Count = Annotated[int, Meta(ge=1)]
Size = int | str
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
#: The longest time, in seconds: ten years. A date that lies further ahead may be none that can be written.
MAX_DURATION = 3650 * 86400
_OFF = re.compile(r"0(?:\.0+)?\s*[smhd]?")
_BYTES = {"": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
_SIZE = re.compile(r"(\d+)\s*([kmg]b)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")


def parse_duration(duration: Duration) -> float:
    """Return a duration (`60`, `60s`, `15m`, `1h`, `1d`) in seconds; raises `ValueError` that says what to write."""
    match = _DURATION.fullmatch(str(duration))
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{duration!r} is not a duration; write seconds, or 60s, 15m, 1h, 1d.")
    found = float(match[1]) * _UNITS[match[2]]
    if found > MAX_DURATION:
        raise ValueError(f"{duration!r} is too long; write at most {MAX_DURATION // 86400}d.")
    return found


def is_off(duration: Duration) -> bool:
    """Say whether a duration is `0` (or `0s`), which turns off what lasts for it."""
    return _OFF.fullmatch(str(duration)) is not None


def parse_size(given: Size) -> int:
    """Return a size (`1024`, `64KB`, `16MB`, `1GB`) in bytes, 1024 to the KB; raises `ValueError` that says what to write."""
    match = _SIZE.fullmatch(str(given))
    if match is None or not int(match[1]):
        raise ValueError(f"{given!r} is not a size; write bytes, or 64KB, 16MB, 1GB.")
    return int(match[1]) * _BYTES[(match[2] or "").lower()]


CategoryName = Literal["Read", "Write", "Execute", "Destructive", "Financial", "Other"]
RiskName = Literal["Low", "Medium", "High", "Critical"]
SeverityName = Literal["low", "medium", "high", "critical"]
#: How a JWT may be signed: by a key pair only, never with a shared secret.
AlgorithmName = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
ActionName = Literal["allow", "deny", "require_approval"]


class Options(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A mapping of the config. Its values may be secrets, so they are never printed."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class ToolOptions(Options, kw_only=True, frozen=True):
    """The operator's word about one tool of a server."""

    category: CategoryName | None = None
    risk: RiskName | None = None
    severity: SeverityName | None = None


class OAuthOptions(Options, kw_only=True, frozen=True):
    """Where the gateway gets its token for a server, as a client of its own (OAuth client credentials)."""

    token_url: str
    client_id: str
    client_secret: str
    scope: str | None = None
    #: Which server the token is for (RFC 8707); its URL when left out.
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
    #: Whose data the calls touch, in words of the operator's; an approval is for this account only.
    account: str | None = None
    tools: dict[str, ToolOptions] = {}
    #: The most connections that requests may take at once; streams have their own.
    connections: Count = 100
    #: How long an approved call may stay unanswered; then it is in doubt.
    answer_within: Duration | None = None
    #: What the server may ask of clients while it works.
    may_ask: list[Literal["sampling", "elicitation", "roots"]] = field(
        default_factory=lambda: ["sampling", "elicitation", "roots"]
    )


class IssuerOptions(Options, kw_only=True, frozen=True):
    """Who issues the JWTs that agents may come with, and what must be in them."""

    issuer: str
    #: Where its public keys are.
    jwks: str
    #: What a token must be for, instead of the server it is used at or the whole gateway.
    audience: list[str] | None = None
    algorithms: list[AlgorithmName] = field(default_factory=lambda: ["RS256", "ES256", "EdDSA"])
    agent_claim: str = "sub"
    owner_claim: str | None = None
    scopes: list[str] = []
    #: Whether a subject that no agent has is an agent of that name.
    any_subject: bool = False


class AgentOptions(Options, kw_only=True, frozen=True):
    """One agent, known by its own token or as the subject of a JWT."""

    name: str
    owner: str | None = None
    token_sha256: str | None = None
    subject: str | None = None
    #: Whose subject, when there are several issuers.
    issuer: str | None = None
    servers: list[str] | None = None


class ApproverOptions(Options, kw_only=True, frozen=True):
    """One person who may review."""

    name: str
    email: str | None = None
    slack: str | None = None
    token_sha256: str | None = None


class LimitOptions(Options, kw_only=True, frozen=True):
    """What every limit says: its window, whose uses count together, and what becomes of a call over it."""

    window: Duration
    per: Literal["session", "agent", "everyone"] = "session"
    #: Whether the tools that the rule is for share one limit; else each has its own.
    shared: bool = False
    on_exceed: Literal["deny", "require_approval"] = "deny"


class RateLimitOptions(LimitOptions, kw_only=True, frozen=True):
    """At most `max` calls per `window`."""

    max: int


class SpendOptions(LimitOptions, kw_only=True, frozen=True):
    """The argument at `of` (`args.amount`) adds up to at most `max` per `window`."""

    of: str
    max: float


class RuleOptions(Options, kw_only=True, frozen=True):
    """What to do with a call."""

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
    """A row of the matrix: a rule for every tool of these classes."""

    category: list[CategoryName] | None = None
    risk: list[RiskName] | None = None
    severity: list[SeverityName] | None = None


class PolicyOptions(Options, kw_only=True, frozen=True):
    """How calls are judged. `default` is what applies where nothing else does."""

    default: ActionName
    matrix: list[RowOptions] = []
    tools: dict[str, RuleOptions | list[RuleOptions]] = {}
    hide: list[str] = []


class ClientOptions(Options, kw_only=True, frozen=True):
    """How clients of one name are kept waiting."""

    #: How long a connection is kept open; left out, as long as such clients are known to bear it.
    wait: Duration | None = None
    #: Whether WAITING is told as an error of the tool, which a model reads best, or as a result.
    waiting: Literal["error", "result"] = "error"


class ApprovalOptions(Options, kw_only=True, frozen=True):
    """How long people have, and what becomes of a call that nobody waits for."""

    expire_after: Duration = "15m"
    approved_for: Duration = "10m"
    #: How long a denial also answers the same call asked again; 0 for not at all.
    remember_denials: Duration = "10m"
    hold_for: Duration = "auto"
    #: How clients of these names are kept waiting: for how long, or more.
    clients: dict[str, Duration | ClientOptions] = {}
    tasks: Literal["extension", "all", "off"] = "extension"
    notify_requester: bool = False
    #: Secrets that seal what clients carry between rounds; the first seals. Left out, one is kept in the store.
    state_keys: list[str] = []
    on_disconnect: Literal["keep", "cancel"] = "keep"
    requester_may_approve: bool = False


class ProxyHeaderOptions(Options, kw_only=True, frozen=True):
    """A header with the approver's e-mail address, believed from these peers only."""

    name: str
    from_: list[str] = field(name="from")


class LoginOptions(Options, kw_only=True, frozen=True):
    """How people log in to the inbox."""

    token: bool = True
    proxy_header: ProxyHeaderOptions | None = None


class SocketOptions(Options, kw_only=True, frozen=True):
    """A Unix socket that users of another group, or all users, may connect to."""

    unix: str
    #: Octal digits, such as "0660"; left out, what the gateway's umask leaves.
    mode: str | int | None = None
    group: str | None = None


Listen = str | SocketOptions


def listen_address(listen: Listen) -> str:
    """Return where a listener is, as `host:port` or `unix:/path`."""
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
    """Where each change of a held call is posted, signed."""

    url: str
    secret: str


class CheckpointOptions(Options, kw_only=True, frozen=True):
    """Where checkpoints of the audit trail go: a file, or a webhook with its secret."""

    file: str | None = None
    webhook: str | None = None
    secret: str | None = None


class AuditOptions(Options, kw_only=True, frozen=True):
    """What is done with the audit trail."""

    #: Whether the events of allowed calls are written behind, waited for, or left out.
    allowed: Literal["post", "wait", "off"] = "post"
    #: A place outside the store that remembers how far the trail was.
    checkpoint: CheckpointOptions | None = None


class CapOptions(Options, kw_only=True, frozen=True):
    """What one agent, and all agents together, may take of the gateway."""

    #: Held calls that wait or run: all, and those of one agent.
    open: Count = 10_000
    open_per_agent: Count = 100
    #: The bytes of these.
    bytes: Size = "256MB"
    bytes_per_agent: Size = "16MB"
    #: The bytes of the calls of one agent that were held within an hour, whatever became of them.
    bytes_per_agent_hour: Size = "256MB"
    exchanges_per_agent: Count = 64
    streams_per_agent: Count = 256
    #: The bytes of request bodies of one agent that are being read and judged.
    bodies_per_agent: Size = "32MB"


class Config(Options, kw_only=True, frozen=True):
    """The whole config."""

    listen: Listen = DEFAULT_LISTEN
    #: More names by which the listeners are addressed, such as a service's name; this machine's are always known.
    hosts: list[str] = []
    #: Addresses and networks of reverse proxies whose Forwarded or X-Forwarded-For is believed; `unix:` for Unix sockets.
    trusted_proxies: list[str] = []
    #: How long everything is still served after SIGTERM, while /readyz is 503 already.
    drain: Duration = 0
    #: A path that is relative is meant from the folder of the config.
    store: str = "sqlite:///okayed.db"
    #: What the audit trail and the held calls are sealed with; it has to lie elsewhere than the store.
    store_key: str | None = None
    servers: dict[str, ServerOptions]
    #: The address by which agents reach the listener from elsewhere.
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
    #: What becomes of a tool whose definition is not the accepted one any more.
    pin: Literal["warn", "reask", "quarantine"] = "reask"
    #: Whether the description of a tool says that a person has to approve its calls.
    annotate: bool = False
