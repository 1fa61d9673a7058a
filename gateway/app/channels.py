"""The channels of a config: where people are asked."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from approvals.channels import Channel
from approvals.channels.slack import SlackChannel
from approvals.channels.slack.http import SlackEndpoint
from approvals.channels.webhook import WebhookChannel
from gateway.config.options import Config, SlackOptions

SlackActions = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_channels(
    config: Config, inbox_url: str, clock: Callable[[], float]
) -> tuple[list[Channel], SlackActions | None]:
    """Return the channels, and what serves `POST /slack/actions` when Slack comes over HTTP."""
    hooks: list[Channel] = [
        WebhookChannel(name=f"webhook:{hook.url}", url=hook.url, secret=hook.secret, clock=clock)
        for hook in config.webhooks
    ]
    if config.slack is None:
        return hooks, None
    channel = _slack(config.slack, inbox_url)
    secret = config.slack.signing_secret
    return [channel, *hooks], _actions(SlackEndpoint(channel, secret)) if secret else None


def _slack(options: SlackOptions, inbox_url: str) -> SlackChannel:
    return SlackChannel(
        bot_token=options.bot_token,
        channel=options.channel,
        app_token=options.app_token,
        api_url=options.api_url,
        inbox_url=inbox_url,
    )


def _actions(endpoint: SlackEndpoint) -> SlackActions:
    async def receive(request: web.Request) -> web.Response:
        status, body = await endpoint.receive(await request.read(), request.headers)
        return web.Response(
            status=status, body=body, content_type="application/json" if body else "text/plain"
        )

    return receive
