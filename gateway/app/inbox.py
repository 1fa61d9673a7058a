"""Builds the inbox of a gateway. Imported when its first connection arrives."""

from aiohttp import web

from approvals.client_address import TrustedProxies
from approvals.web.application import build_inbox
from approvals.web.options import Handler, WebOptions
from gateway.app.gateway import Gateway
from gateway.app.tool_views import list_tool_views
from gateway.config.addresses import host_names
from gateway.config.options import Config, listen_address


def build_app(gateway: Gateway, config: Config, url: str, slack_actions: Handler | None) -> web.Application:
    """Return the application that serves the inbox at *url*."""
    return build_inbox(gateway.service, gateway.store, _build_options(gateway, config, url, slack_actions))


def _build_options(gateway: Gateway, config: Config, url: str, slack_actions: Handler | None) -> WebOptions:
    header = config.inbox.login.proxy_header
    return WebOptions(
        url=url,
        proxy_header=header.name if header else "",
        proxy_peers=tuple(header.from_) if header else (),
        proxies=TrustedProxies.parse(config.trusted_proxies),
        token_login=config.inbox.login.token,
        hosts=host_names(listen_address(config.inbox.listen), config.hosts),
        slack_actions=slack_actions,
        metrics=gateway.metrics.exposition,
        tools=lambda: list_tool_views(gateway),
        accept=gateway.accept,
    )
