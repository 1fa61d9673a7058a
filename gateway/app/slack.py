"""Builds the Slack channel."""

from aiohttp import web

from approvals.channels.slack import SlackChannel
from approvals.channels.slack.http import SlackEndpoint
from approvals.web.options import Handler
from gateway.config.options import SlackOptions


def build_slack(options: SlackOptions, inbox_url: str) -> tuple[SlackChannel, Handler | None]:
    """Build the channel, and the handler of `POST /slack/actions` if Slack is used over HTTP."""
    channel = SlackChannel(
        bot_token=options.bot_token,
        channel=options.channel,
        app_token=options.app_token,
        api_url=options.api_url,
        inbox_url=inbox_url,
    )
    secret = options.signing_secret
    return channel, _slack_handler(SlackEndpoint(channel, secret)) if secret else None


def _slack_handler(endpoint: SlackEndpoint) -> Handler:
    async def receive(request: web.Request) -> web.Response:
        status, body = await endpoint.receive(await request.read(), request.headers)
        return web.Response(
            status=status, body=body, content_type="application/json" if body else "text/plain"
        )

    return receive
