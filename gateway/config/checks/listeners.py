"""Checks the listeners of a config, and the proxies that they trust (PURE)."""

import re
from collections.abc import Iterator
from ipaddress import ip_network

from approvals.client_address import UNIX
from gateway.config.addresses import is_http_url, is_loopback, parse_host_and_port
from gateway.config.checks.wording import HTTP_URL
from gateway.config.options import Config, Listen, listen_address
from gateway.config.problems import Path, Problem

_MODE = re.compile(r"0?[0-7]{3}")


def find_problems(config: Config) -> Iterator[Problem]:
    """Report invalid or shared addresses, open listeners without tokens, and proxies that cannot be trusted."""
    yield from _address_problems(("listen",), config.listen)
    yield from _address_problems(("inbox", "listen"), config.inbox.listen)
    agents = listen_address(config.listen)
    if agents == listen_address(config.inbox.listen) and not agents.endswith(":0"):
        yield Problem(
            ("inbox", "listen"),
            "the inbox needs its own listener, because agents must not reach it; use another port.",
        )
    if not config.agents and not config.jwt and not _is_local(agents):
        yield Problem(
            ("listen",),
            "without agents or jwt this may listen only on this machine; add agents, or use 127.0.0.1.",
        )
    if config.inbox.url is not None and not is_http_url(config.inbox.url):
        yield Problem(("inbox", "url"), HTTP_URL)
    yield from _login_problems(config)
    yield from _proxy_problems(config)


def _address_problems(path: Path, listen: Listen) -> Iterator[Problem]:
    try:
        parse_host_and_port(listen_address(listen))
    except ValueError:
        yield Problem(path, f"{listen!r} is not host:port or unix:/path.")
    # A number is refused: YAML reads 0660 as 660, and 0o660 as 432.
    mode = None if isinstance(listen, str) else listen.mode
    if mode is not None and not (isinstance(mode, str) and _MODE.fullmatch(mode)):
        yield Problem(
            (*path, "mode"), f'{mode!r} is not a mode; write three octal digits in quotes, such as "0660".'
        )


def _is_local(listen: str) -> bool:
    """Return whether only this machine reaches a listener; an invalid address is reported elsewhere."""
    try:
        found = parse_host_and_port(listen)
    except ValueError:
        return True
    return found is None or is_loopback(found[0])


def _login_problems(config: Config) -> Iterator[Problem]:
    header = config.inbox.login.proxy_header
    for number, peer in enumerate(header.from_ if header else ()):
        try:
            ip_network(peer, strict=False)
        except ValueError:
            path: Path = ("inbox", "login", "proxy_header", "from", number)
            yield Problem(path, f"{peer!r} is not an IP address or network; write 10.0.0.5 or 10.0.0.0/8.")


def _proxy_problems(config: Config) -> Iterator[Problem]:
    for number, peer in enumerate(config.trusted_proxies):
        path: Path = ("trusted_proxies", number)
        if peer == UNIX:
            continue
        try:
            network = ip_network(peer, strict=False)
        except ValueError:
            yield Problem(
                path, f"{peer!r} is not an IP address or network; write 10.0.0.5, 10.0.0.0/8 or unix:."
            )
            continue
        if not network.prefixlen:
            yield Problem(
                path, f"{peer} is every address, so any client could forge its own; list only your proxies."
            )
