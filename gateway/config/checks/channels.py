"""Checks Slack, the webhooks and the links of a config (PURE)."""

from collections.abc import Iterator

from gateway.config.addresses import is_http_url
from gateway.config.checks.wording import HTTP_URL, NOT_EMPTY
from gateway.config.options import Config, SlackOptions
from gateway.config.problems import Path, Problem


def find_problems(config: Config) -> Iterator[Problem]:
    """Report missing secrets, invalid addresses, and a Slack app without approvers."""
    if config.slack is not None:
        yield from _slack_problems(config, config.slack)
    for number, hook in enumerate(config.webhooks):
        if not is_http_url(hook.url):
            yield Problem(("webhooks", number, "url"), HTTP_URL)
        if not hook.secret:
            yield Problem(
                ("webhooks", number, "secret"),
                "this must not be empty: receivers verify the signature with it.",
            )
    yield from _checkpoint_problems(config)
    if config.approvals.notify_requester and not config.inbox.url:
        yield Problem(
            ("approvals", "notify_requester"), "this needs the address of the inbox; set inbox.url."
        )


def _slack_problems(config: Config, slack: SlackOptions) -> Iterator[Problem]:
    for field in ("bot_token", "channel"):
        if not getattr(slack, field):
            yield Problem(("slack", field), NOT_EMPTY)
    if slack.api_url is not None and not is_http_url(slack.api_url):
        yield Problem(("slack", "api_url"), HTTP_URL)
    if bool(slack.app_token) == bool(slack.signing_secret):
        yield Problem(
            ("slack",), "give either app_token (Socket Mode) or signing_secret (the HTTP endpoint)."
        )
    if not any(approver.slack for approver in config.approvers):
        yield Problem(
            ("slack",), "no approver has a Slack ID; add slack: U... to each approver who uses Slack."
        )


def _checkpoint_problems(config: Config) -> Iterator[Problem]:
    if (options := config.audit.checkpoint) is None:
        return
    path: Path = ("audit", "checkpoint")
    if (options.file is None) == (options.webhook is None):
        yield Problem(path, "give either a file or a webhook.")
    if options.webhook is not None and not is_http_url(options.webhook):
        yield Problem((*path, "webhook"), HTTP_URL)
    if (options.webhook is None) != (not options.secret):
        yield Problem((*path, "secret"), "a webhook needs a secret that is not empty; a file needs none.")
