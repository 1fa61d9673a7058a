"""What is wrong with the meaning of a config whose shape is right: each problem as its path and one sentence (PURE)."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from approvals.client_address import UNIX
from gateway.auth import issuers
from gateway.config.addresses import host_and_port, is_http_url, is_loopback, is_secure_url
from gateway.config.options import (
    ClientOptions,
    Config,
    Duration,
    Listen,
    OAuthOptions,
    ServerOptions,
    is_off,
    listen_address,
    parse_duration,
    parse_size,
)
from gateway.config.yaml import Path, did_you_mean
from gateway.policy.compiling import PolicyError, compile_policy

_MODE = re.compile(r"0?[0-7]{3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Characters that a key for sealing needs at least.
MIN_KEY = 32
_EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HTTP = "this must be an http:// or https:// address."
Said = tuple[Path, str]


def meaning_problems(config: Config) -> Iterator[Said]:
    """Yield everything that is wrong with what a config means."""
    yield from _server_problems(config)
    yield from _people_problems(config)
    yield from _owner_problems(config)
    yield from issuers.problems(config)
    yield from _place_problems(config)
    yield from _login_problems(config)
    yield from _proxy_problems(config)
    yield from _slack_problems(config)
    yield from _webhook_problems(config)
    yield from _checkpoint_problems(config)
    yield from _hold_problems(config)
    yield from _key_problems(config)
    yield from _size_problems(config)
    durations = list(_duration_problems(config))
    yield from durations or _policy_problems(config)


def _policy_problems(config: Config) -> Iterator[Said]:
    try:
        compile_policy(config)
    except PolicyError as error:
        yield from error.problems


def _server_problems(config: Config) -> Iterator[Said]:
    if not config.servers:
        yield ("servers",), "name at least one server."
    for name, server in config.servers.items():
        path: Path = ("servers", name)
        if not SERVER_NAME.fullmatch(name):
            yield path, "a server's name is letters, digits, _, . and -, at most 64 of them."
        if (server.command is None) == (server.url is None):
            yield path, "give either a command (a list) or a url."
        if server.command is not None and (not server.command or not server.command[0]):
            yield (*path, "command"), "the list needs at least the program to start."
        if server.url is not None and not is_http_url(server.url):
            yield (*path, "url"), _HTTP
        if server.url is None and server.transport != "http":
            yield (*path, "transport"), "this belongs to a url; leave it out."
        if server.oauth is not None:
            yield from _oauth_problems((*path, "oauth"), server, server.oauth)


def _oauth_problems(path: Path, server: ServerOptions, oauth: OAuthOptions) -> Iterator[Said]:
    if server.url is None:
        yield path, "this belongs to a url; a command gets its credentials by env."
    if "authorization" in map(str.lower, server.headers):
        yield path, "headers has an Authorization already; keep one of them."
    if not is_secure_url(oauth.token_url):
        yield (
            (*path, "token_url"),
            "this must be an https:// address (http:// on this machine only): the secret goes there.",
        )
    for field in ("client_id", "client_secret"):
        if not getattr(oauth, field):
            yield (*path, field), "this must not be empty."


def _people_problems(config: Config) -> Iterator[Said]:
    yield from _repeated("agents", "name", [agent.name for agent in config.agents])
    for field in ("name", "slack", "email", "token_sha256"):
        yield from _repeated("approvers", field, [getattr(approver, field) for approver in config.approvers])
    yield from _token_problems(config)
    for number, agent in enumerate(config.agents):
        for server in agent.servers or []:
            if server not in config.servers:
                yield (
                    ("agents", number, "servers"),
                    f"there is no server {server!r}{did_you_mean(server, list(config.servers))}.",
                )
    names = [approver.name for approver in config.approvers]
    for group, members in config.groups.items():
        if group in names:
            yield ("groups", group), "an approver has this name too; give the group another one."
        for member in members:
            if member not in names:
                yield ("groups", group), f"there is no approver {member!r}{did_you_mean(member, names)}."


def _owner_problems(config: Config) -> Iterator[Said]:
    """Yield each agent whose calls nobody could approve: those of one's own agent nobody may."""
    if config.approvals.requester_may_approve or len(config.approvers) != 1:
        return
    [only] = config.approvers
    mine = {name.casefold() for name in (only.name, only.email) if name}
    for number, agent in enumerate(config.agents):
        if agent.owner is not None and agent.owner.casefold() in mine:
            why = "the owner is the only approver, and nobody approves the calls of their own agent"
            remedy = "add another approver, or set approvals.requester_may_approve: true"
            yield ("agents", number, "owner"), f"{why}; {remedy}."


def _repeated(section: str, field: str, values: Sequence[str | None]) -> Iterator[Said]:
    seen: set[str] = set()
    for number, value in enumerate(values):
        if value is not None and value.casefold() in seen:
            yield (section, number, field), f"another of the {section} has this {field} already."
        seen.add((value or "").casefold())


def _token_problems(config: Config) -> Iterator[Said]:
    agents_hashes = [agent.token_sha256 for agent in config.agents if agent.token_sha256 is not None]
    hashes = [("agents", n, agent.token_sha256) for n, agent in enumerate(config.agents)]
    hashes += [("approvers", n, one.token_sha256) for n, one in enumerate(config.approvers)]
    for section, number, value in hashes:
        path: Path = (section, number, "token_sha256")
        if value is None:
            continue
        if not _SHA256.fullmatch(value) or value == _EMPTY_SHA256:
            yield (
                path,
                f"this must be the SHA-256 of a token, 64 hex digits; make one with: okayed token {section[:-1]} NAME",
            )
        elif section == "approvers" and value in agents_hashes:
            yield (
                path,
                "an agent has the same token, and agents may never decide; make the approver another one.",
            )
    if len(set(agents_hashes)) != len(agents_hashes):
        yield ("agents",), "two agents have the same token; each needs its own."


def _duration_problems(config: Config) -> Iterator[Said]:
    approvals = config.approvals
    given: list[tuple[Path, Duration]] = [
        (("approvals", "expire_after"), approvals.expire_after),
        (("approvals", "approved_for"), approvals.approved_for),
    ]
    given += [
        (("approvals", "clients", name), wait)
        for name, options in approvals.clients.items()
        if (wait := options.wait if isinstance(options, ClientOptions) else options) is not None
    ]
    given += [
        (("servers", name, "answer_within"), server.answer_within)
        for name, server in config.servers.items()
        if server.answer_within is not None
    ]
    if approvals.hold_for != "auto":
        given.append((("approvals", "hold_for"), approvals.hold_for))
    if not is_off(approvals.remember_denials):
        given.append((("approvals", "remember_denials"), approvals.remember_denials))
    if not is_off(config.drain):
        given.append((("drain",), config.drain))
    for path, value in given:
        try:
            parse_duration(value)
        except ValueError as error:
            yield path, str(error)


def _size_problems(config: Config) -> Iterator[Said]:
    for name in ("bytes", "bytes_per_agent", "bytes_per_agent_hour"):
        try:
            parse_size(getattr(config.limits, name))
        except ValueError as error:
            yield ("limits", name), str(error)


def _hold_problems(config: Config) -> Iterator[Said]:
    if config.approvals.notify_requester and not config.inbox.url:
        yield ("approvals", "notify_requester"), "say where people decide: give inbox.url, too."


def _key_problems(config: Config) -> Iterator[Said]:
    given: list[tuple[Path, str]] = [
        (("approvals", "state_keys", number), secret)
        for number, secret in enumerate(config.approvals.state_keys)
    ]
    if config.store_key is not None:
        given.append((("store_key",), config.store_key))
    for path, secret in given:
        if len(secret) < MIN_KEY:
            yield path, f"a key needs at least {MIN_KEY} characters; make one with: openssl rand -hex 32"


def _place_problems(config: Config) -> Iterator[Said]:
    places: dict[Path, tuple[str, int] | None] = {}
    at = {("listen",): config.listen, ("inbox", "listen"): config.inbox.listen}
    for path, listen in at.items():
        try:
            places[path] = host_and_port(listen_address(listen))
        except ValueError:
            yield path, f"{listen!r} is not host:port or unix:/path."
        yield from _mode_problems(path, listen)
    agents = listen_address(config.listen)
    if agents == listen_address(config.inbox.listen) and not agents.endswith(":0"):
        yield ("inbox", "listen"), "the inbox needs a listener of its own: agents must not reach it."
    here = places.get(("listen",))
    if not config.agents and not config.jwt and here is not None and not is_loopback(here[0]):
        yield (
            ("listen",),
            "without agents and tokens this may listen on this machine only; add agents, or use 127.0.0.1.",
        )
    if config.inbox.url is not None and not is_http_url(config.inbox.url):
        yield ("inbox", "url"), _HTTP
    if not re.match(r"sqlite:///.|memory:$", config.store):
        yield (
            ("store",),
            "this must be sqlite:///path (or memory: for a trial); other databases are not supported in this version.",
        )


def _mode_problems(path: Path, listen: Listen) -> Iterator[Said]:
    """Yield a mode that is none. A number is refused: YAML reads 0660 as 660, and 0o660 as 432."""
    mode = None if isinstance(listen, str) else listen.mode
    if mode is not None and not (isinstance(mode, str) and _MODE.fullmatch(mode)):
        yield (*path, "mode"), f'{mode!r} is no mode; write three octal digits in quotes, such as "0660".'


def _login_problems(config: Config) -> Iterator[Said]:
    header = config.inbox.login.proxy_header
    for number, peer in enumerate(header.from_ if header else ()):
        try:
            ip_network(peer, strict=False)
        except ValueError:
            path: Path = ("inbox", "login", "proxy_header", "from", number)
            yield path, f"{peer!r} is no IP address and no network; write 10.0.0.5 or 10.0.0.0/8."


def _proxy_problems(config: Config) -> Iterator[Said]:
    for number, peer in enumerate(config.trusted_proxies):
        path: Path = ("trusted_proxies", number)
        if peer == UNIX:
            continue
        try:
            network = ip_network(peer, strict=False)
        except ValueError:
            yield path, f"{peer!r} is no IP address and no network; write 10.0.0.5, 10.0.0.0/8 or unix:."
            continue
        if not network.prefixlen:
            yield path, f"{peer} is every address, so any client could name itself; write your proxies' own."


def _slack_problems(config: Config) -> Iterator[Said]:
    slack = config.slack
    if slack is None:
        return
    for field in ("bot_token", "channel"):
        if not getattr(slack, field):
            yield ("slack", field), "this must not be empty."
    if slack.api_url is not None and not is_http_url(slack.api_url):
        yield ("slack", "api_url"), _HTTP
    if bool(slack.app_token) == bool(slack.signing_secret):
        yield ("slack",), "give either app_token (Socket Mode) or signing_secret (the HTTP endpoint)."
    if not any(approver.slack for approver in config.approvers):
        yield (
            ("slack",),
            "no approver has a slack id, so nobody could approve there; add slack: U... to an approver.",
        )


def _checkpoint_problems(config: Config) -> Iterator[Said]:
    if (asked := config.audit.checkpoint) is None:
        return
    path: Path = ("audit", "checkpoint")
    if (asked.file is None) == (asked.webhook is None):
        yield path, "give either a file or a webhook."
    if asked.webhook is not None and not is_http_url(asked.webhook):
        yield (*path, "webhook"), _HTTP
    if (asked.webhook is None) != (not asked.secret):
        yield (*path, "secret"), "a webhook needs a secret, which must not be empty; a file needs none."


def _webhook_problems(config: Config) -> Iterator[Said]:
    for number, hook in enumerate(config.webhooks):
        if not is_http_url(hook.url):
            yield ("webhooks", number, "url"), _HTTP
        if not hook.secret:
            yield ("webhooks", number, "secret"), "this must not be empty: receivers know us by it."
