"""Builds the channels of a config: Slack and webhooks."""

from collections.abc import Callable

from approvals.channels import Channel
from approvals.web.options import Handler
from gateway.config.options import Config


def build_channels(
    config: Config, inbox_url: str, clock: Callable[[], float]
) -> tuple[list[Channel], Handler | None]:
    """Build the channels, and the handler of `POST /slack/actions` if Slack is used over HTTP."""
    hooks = _build_webhooks(config, clock)
    if config.slack is None:
        return hooks, None
    from gateway.app.slack import build_slack

    channel, actions = build_slack(config.slack, inbox_url)
    return [channel, *hooks], actions


def _build_webhooks(config: Config, clock: Callable[[], float]) -> list[Channel]:
    if not config.webhooks:
        return []
    from approvals.channels.webhook import WebhookChannel

    return [
        WebhookChannel(name=f"webhook:{hook.url}", url=hook.url, secret=hook.secret, clock=clock)
        for hook in config.webhooks
    ]
