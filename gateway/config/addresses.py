"""Parses listener addresses and URLs, and tells whether they are local or secure (PURE)."""

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

#: The prefix of the address of a Unix socket, and the base URL of requests over one.
UNIX = "unix:"
SOCKET_URL = "http://localhost"
#: The address to connect to, for a listener on all interfaces.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def is_loopback(host: str) -> bool:
    """Return whether *host* is a loopback address or `localhost`."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_secure_url(url: str) -> bool:
    """Return whether *url* is https, or http to this machine, without a user or a fragment."""
    parts = parse_url(url)
    if parts is None or not parts.hostname or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def is_http_url(url: str) -> bool:
    """Return whether *url* is an http or https URL with a host and no spaces."""
    parts = parse_url(url)
    is_complete = parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname)
    return is_complete and not any(map(str.isspace, url))


def parse_url(url: str) -> SplitResult | None:
    """Return the parts of *url*, or None if it is malformed."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def parse_host_and_port(listen: str) -> tuple[str, int] | None:
    """Return the host and the port of `host:port`, or None for a Unix socket; raises `ValueError`."""
    if listen.startswith(UNIX):
        return None
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(listen)
    return host.strip("[]"), int(port)


def local_address(listen: str) -> str:
    """Return the address of a listener as seen from this machine: an http URL, or `unix:/path` unchanged."""
    found = parse_host_and_port(listen)
    if found is None:
        return listen
    host, port = _ANY.get(found[0], found[0]), found[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def host_names(listen: str, others: Iterable[str | None]) -> frozenset[str]:
    """Return the host of a listener's address and *others*, in lower case."""
    found = parse_host_and_port(listen)
    return frozenset(name.lower() for name in (found and found[0], *others) if name)
