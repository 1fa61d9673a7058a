"""The channels of a config: where people are asked."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from approvals.channels import Channel
from gateway.options import Config

Actions = Callable[[web.Request], Awaitable[web.StreamResponse]]


def channels_of(config: Config) -> tuple[list[Channel], Actions | None]:
    """Return the channels, and what serves `POST /slack/actions` when Slack comes over HTTP."""
    return [], None
