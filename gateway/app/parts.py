"""Builds the parts of a gateway from its config."""

from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

from approvals.clock import Clock
from approvals.identity import Directory
from approvals.model import Approver
from approvals.quotas import Quotas
from gateway.app.late_client import LateClient
from gateway.call.exchange_limits import ExchangeShares
from gateway.call.hold_settings import ClientRule, HoldSettings, TaskOffer
from gateway.config.options import ClientOptions, Config, Duration, ServerOptions, parse_duration, parse_size
from gateway.hold.request_state import StateSealer
from gateway.tools.catalogue import Override
from gateway.tools.classify.risk import Category, Risk
from gateway.tools.classify.severity import Severity
from gateway.upstreams import Upstream
from gateway.upstreams.credentials import Credentials, FixedCredentials
from gateway.upstreams.http import ConnectionPools, HttpUpstream
from gateway.upstreams.requests import KINDS, RequestFilter
from gateway.upstreams.stdio import ServerCommand, StdioUpstream


def build_access_check(config: Config) -> Callable[[str, str], bool]:
    """Return a function that checks whether an agent may use a server, both by name."""
    named = {agent.name: agent.servers for agent in config.agents}
    accepts_others = any(issuer.any_subject for issuer in config.jwt) or not (config.agents or config.jwt)

    def may_use(agent: str, server: str) -> bool:
        if agent not in named:
            return accepts_others
        servers = named[agent]
        return servers is None or server in servers

    return may_use


@lru_cache(maxsize=1)
def build_sealer(keys: tuple[str, ...], secret: bytes) -> StateSealer:
    """Return the sealer of requestState, with the keys of the config or else the store's *secret*."""
    return StateSealer([key.encode() for key in keys] or [secret])


def build_hold_settings(config: Config) -> HoldSettings:
    """Return the settings of held calls."""
    options = config.approvals
    return HoldSettings(
        hold_for=None if options.hold_for == "auto" else parse_duration(options.hold_for),
        clients={name: _client_rule(client) for name, client in options.clients.items()},
        tasks=TaskOffer(options.tasks),
        cancel_on_disconnect=options.on_disconnect == "cancel",
        link=(config.inbox.url or "") if options.notify_requester else "",
        answer_within={
            name: parse_duration(server.answer_within)
            for name, server in config.servers.items()
            if server.answer_within is not None
        },
    )


def _client_rule(options: Duration | ClientOptions) -> ClientRule:
    if not isinstance(options, ClientOptions):
        return ClientRule(wait=parse_duration(options))
    wait = None if options.wait is None else parse_duration(options.wait)
    return ClientRule(wait=wait, as_result=options.waiting == "result")


def build_quotas(config: Config) -> Quotas:
    """Return the limits on the number and size of held calls."""
    limits = config.limits
    return Quotas(
        open=limits.open,
        open_per_agent=limits.open_per_agent,
        bytes=parse_size(limits.bytes),
        bytes_per_agent=parse_size(limits.bytes_per_agent),
        bytes_per_agent_hour=parse_size(limits.bytes_per_agent_hour),
    )


def build_exchange_shares(config: Config) -> ExchangeShares:
    """Return the limits on one agent's concurrent exchanges."""
    limits = config.limits
    return ExchangeShares(
        requests=limits.exchanges_per_agent,
        streams=limits.streams_per_agent,
        bodies=parse_size(limits.bodies_per_agent),
    )


def build_directory(config: Config) -> Directory:
    """Return the directory of approvers."""
    return Directory(
        Approver(
            name=approver.name, email=approver.email, slack=approver.slack, token_sha256=approver.token_sha256
        )
        for approver in config.approvers
    )


def build_upstream(
    name: str, options: ServerOptions, client: LateClient, pools: ConnectionPools, clock: Clock
) -> Upstream:
    """Return the connection to a server, which refuses requests to clients that `may_ask` does not list."""
    connection = _build_connection(name, options, client, pools, clock)
    if KINDS.keys() <= {*options.may_ask}:
        return connection
    return RequestFilter(name, connection, options.may_ask)


def _build_connection(
    name: str, options: ServerOptions, client: LateClient, pools: ConnectionPools, clock: Clock
) -> Upstream:
    if options.url is None:
        command = ServerCommand(name=name, argv=options.command or [], env=options.env, cwd=options.cwd)
        return StdioUpstream(command, clock)
    credentials, connections = build_credentials(options, client, clock), pools.of(name, options.connections)
    if options.transport == "sse":
        from gateway.upstreams.sse import SseServer, SseUpstream

        source = SseServer(
            name=name,
            url=options.url,
            credentials=credentials,
            requests=connections.requests,
            streams=connections.streams,
        )
        return SseUpstream(source, clock)
    return HttpUpstream(options.url, credentials, connections.requests, connections.streams)


def build_credentials(options: ServerOptions, client: LateClient, clock: Clock) -> Credentials:
    """Return the gateway's credentials for a server: the headers of the config, with an OAuth token if configured."""
    if options.oauth is None:
        return FixedCredentials(options.headers)
    from gateway.upstreams.oauth import ClientCredentials, OAuthClient

    oauth = OAuthClient(
        token_url=options.oauth.token_url,
        id=options.oauth.client_id,
        secret=options.oauth.client_secret,
        scope=options.oauth.scope,
        resource=options.oauth.resource or options.url or "",
    )
    return ClientCredentials(oauth, client.open(), clock, extra_headers=options.headers)


def connection_options(options: ServerOptions) -> ServerOptions:
    """Return a server's options with those at fixed values that its connection does not depend on."""
    return msgspec.structs.replace(options, tools={}, connections=1, answer_within=None)


def build_overrides(server: ServerOptions) -> Mapping[str, Override]:
    """Return the operator's classifications of a server's tools."""
    return {
        name: Override(
            category=Category(tool.category) if tool.category else None,
            risk=Risk(tool.risk) if tool.risk else None,
            severity=Severity(tool.severity) if tool.severity else None,
        )
        for name, tool in server.tools.items()
    }
