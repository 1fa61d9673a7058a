"""Builds the channels of a config: Slack and webhooks."""

from collections.abc import Callable

from aiohttp import web

from approvals.channels import Channel
from approvals.channels.slack import SlackChannel
from approvals.channels.slack.http import SlackEndpoint
from approvals.channels.webhook import WebhookChannel
from approvals.web.options import Handler
from gateway.config.options import Config, SlackOptions


def build_channels(
    config: Config, inbox_url: str, clock: Callable[[], float]
) -> tuple[list[Channel], Handler | None]:
    """Build the channels, and the handler of `POST /slack/actions` if Slack is used over HTTP."""
    hooks: list[Channel] = [
        WebhookChannel(name=f"webhook:{hook.url}", url=hook.url, secret=hook.secret, clock=clock)
        for hook in config.webhooks
    ]
    if config.slack is None:
        return hooks, None
    channel = _slack_channel(config.slack, inbox_url)
    secret = config.slack.signing_secret
    return [channel, *hooks], _slack_handler(SlackEndpoint(channel, secret)) if secret else None


def _slack_channel(options: SlackOptions, inbox_url: str) -> SlackChannel:
    return SlackChannel(
        bot_token=options.bot_token,
        channel=options.channel,
        app_token=options.app_token,
        api_url=options.api_url,
        inbox_url=inbox_url,
    )


def _slack_handler(endpoint: SlackEndpoint) -> Handler:
    async def receive(request: web.Request) -> web.Response:
        status, body = await endpoint.receive(await request.read(), request.headers)
        return web.Response(
            status=status, body=body, content_type="application/json" if body else "text/plain"
        )

    return receive
