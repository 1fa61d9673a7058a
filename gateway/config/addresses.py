"""Addresses: what they say, which lead to this machine, and which are safe to trust what comes from them (PURE)."""

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

#: What listens on every address of this machine is reached at one of them: no request is addressed to all.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def is_loopback(host: str) -> bool:
    """Say whether *host* is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_secure_url(url: str) -> bool:
    """Say whether *url* is https, or http on this machine, without a user and a fragment."""
    parts = parse_url(url)
    if parts is None or not parts.hostname or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def is_http_url(url: str) -> bool:
    """Say whether *url* is an http or https address with a host."""
    parts = parse_url(url)
    whole = parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname)
    return whole and not any(map(str.isspace, url))


def parse_url(url: str) -> SplitResult | None:
    """Return the parts of *url*, or None when it has none that can be read."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def host_and_port(listen: str) -> tuple[str, int] | None:
    """Return host and port of `host:port`, or None for a Unix socket; raises `ValueError`."""
    if listen.startswith("unix:"):
        return None
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(listen)
    return host.strip("[]"), int(port)


def local_address(listen: str) -> str:
    """Return where this very machine reaches what listens there: a URL, or the Unix socket as it is."""
    place = host_and_port(listen)
    if place is None:
        return listen
    host = _ANY.get(place[0], place[0])
    return f"http://[{host}]:{place[1]}" if ":" in host else f"http://{host}:{place[1]}"
