"""Checks of a request by its headers alone (PURE). *pairs* are headers in order, with names in lower case."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames

Pairs = Sequence[tuple[str, str]]
#: Host names that are always accepted.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:@/\[\]]*)(?::[0-9]+)?")
_JSON = re.compile(r"application/json(\s*;\s*charset=\"?utf-8\"?)?\s*", re.IGNORECASE)


def refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return the reply to a refused request: a JSON-RPC error without an id."""
    return frame_reply(frames.build_error(None, -32000, message), status=status, headers=headers)


def list_values(pairs: Pairs, name: str) -> list[str]:
    """Return the values of a header."""
    return [value for known, value in pairs if known == name]


def check_host(pairs: Pairs, hosts: frozenset[str]) -> Reply | None:
    """Refuse other hosts and origins than *hosts*, against DNS rebinding and cross-site requests."""
    if not _is_known(list_values(pairs, "host"), hosts):
        return refuse(421, "This host name is not served here.")
    origins = list_values(pairs, "origin")
    if origins and not _is_known([_authority_of(origin) for origin in origins], hosts):
        return refuse(403, "Requests from this origin are not allowed.")
    return None


def check_content(verb: str, pairs: Pairs) -> Reply | None:
    """Refuse bodies that a server could read differently: other media types, charsets and encodings."""
    if list_values(pairs, "content-encoding"):
        return refuse(415, "Content-Encoding is not accepted.")
    if verb == "POST" and not _is_json(list_values(pairs, "content-type")):
        return refuse(415, "Content-Type must be application/json.")
    return None


def _is_known(authorities: Sequence[str], hosts: frozenset[str]) -> bool:
    return len(authorities) == 1 and _parse_host_name(authorities[0]) in hosts


def _authority_of(origin: str) -> str:
    return urlsplit(origin).netloc


def _parse_host_name(authority: str) -> str:
    match = _AUTHORITY.fullmatch(authority)
    return match[1].strip("[]").lower() if match else ""


def _is_json(types: Sequence[str]) -> bool:
    return len(types) == 1 and _JSON.fullmatch(types[0].strip()) is not None
