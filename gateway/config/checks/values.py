"""Checks the durations, sizes, keys and the store address of a config (PURE)."""

from collections.abc import Iterator

from gateway.config.options import (
    STORE_ERROR,
    ClientOptions,
    Config,
    Duration,
    is_off,
    is_store,
    parse_duration,
    parse_size,
)
from gateway.config.problems import Path, Problem

#: The least number of characters of a key.
MIN_KEY = 32


def find_problems(config: Config) -> Iterator[Problem]:
    """Report keys that are too short, sizes that cannot be read, and a store of an unknown kind."""
    if not is_store(config.store):
        yield Problem(("store",), STORE_ERROR)
    for path, secret in _keys(config):
        if len(secret) < MIN_KEY:
            yield Problem(
                path, f"a key needs at least {MIN_KEY} characters; make one with: openssl rand -hex 32"
            )
    for name in ("bytes", "bytes_per_agent", "bytes_per_agent_hour", "bodies_per_agent"):
        try:
            parse_size(getattr(config.limits, name))
        except ValueError as error:
            yield Problem(("limits", name), str(error))


def _keys(config: Config) -> Iterator[tuple[Path, str]]:
    for number, secret in enumerate(config.approvals.state_keys):
        yield ("approvals", "state_keys", number), secret
    if config.store_key is not None:
        yield ("store_key",), config.store_key


def find_duration_problems(config: Config) -> Iterator[Problem]:
    """Report durations outside the policy that cannot be read; the policy compiles only without them."""
    for path, value in _durations(config):
        try:
            parse_duration(value)
        except ValueError as error:
            yield Problem(path, str(error))


def _durations(config: Config) -> Iterator[tuple[Path, Duration]]:
    approvals = config.approvals
    yield ("approvals", "expire_after"), approvals.expire_after
    yield ("approvals", "approved_for"), approvals.approved_for
    for name, options in approvals.clients.items():
        if (wait := options.wait if isinstance(options, ClientOptions) else options) is not None:
            yield ("approvals", "clients", name), wait
    for name, server in config.servers.items():
        if server.answer_within is not None:
            yield ("servers", name, "answer_within"), server.answer_within
    if approvals.hold_for != "auto":
        yield ("approvals", "hold_for"), approvals.hold_for
    if not is_off(approvals.remember_denials):
        yield ("approvals", "remember_denials"), approvals.remember_denials
    if not is_off(config.drain):
        yield ("drain",), config.drain
