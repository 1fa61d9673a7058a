"""Builds the heads of requests to servers. The lines that requests to one address share are built once."""

import re
from collections.abc import Mapping
from functools import lru_cache

from gateway.errors import NotSentError
from gateway.upstreams.http1.address import Address

#: Headers that only this client sets: they decide where a request ends.
_FRAMING = frozenset({"content-length", "transfer-encoding"})

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class HeadBuilder:
    """Builds the heads of requests with one verb, to one address, with the same credentials."""

    def __init__(
        self, verb: str, address: Address, defaults: Mapping[str, str], credentials: Mapping[str, str]
    ) -> None:
        """*credentials* win over a request's headers, which win over *defaults*; names are case-insensitive."""
        self.credentials = credentials
        self._start = f"{verb} {address.target} HTTP/1.1\r\n".encode()
        authorization = {"authorization": address.authorization} if address.authorization else {}
        self._defaults = _lower({
            # A server may use any encoding if this header is absent (RFC 9110, section 12.5.3).
            "host": address.host_header, "accept-encoding": "identity", **defaults, **authorization,
        })  # fmt: skip
        self._own = _lower(credentials)
        shared = _without_framing({**self._defaults, **self._own})
        self._shared_lines = self._start + _encode(shared)
        #: The names that cannot simply be added to the shared lines.
        self._taken = _FRAMING.union(shared)
        #: POST has a length even without a body (RFC 9110, section 8.6).
        self._has_length = verb == "POST"
        #: The lines before Content-Length. A client repeats its headers.
        self._lines = lru_cache(maxsize=64)(self._build_lines)

    def build(self, headers: Mapping[str, str], length: int) -> bytes:
        """Return the head of a request with these headers and a body of *length* bytes; raises `NotSentError`."""
        lines = self._lines(tuple(headers.items()))
        if length or self._has_length:
            return b"%bcontent-length: %d\r\n\r\n" % (lines, length)
        return lines + b"\r\n"

    def _build_lines(self, headers: tuple[tuple[str, str], ...]) -> bytes:
        lowered = _lower(dict(headers))
        if self._taken.isdisjoint(lowered):
            return self._shared_lines + _encode(lowered)
        return self._start + _encode(_without_framing({**self._defaults, **lowered, **self._own}))


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {_lower_name(name): value for name, value in headers.items()}


@lru_cache(maxsize=1024)
def _lower_name(name: str) -> str:
    """Return a header name in lower case; raises `NotSentError` if it is not a token (RFC 9110, section 5.6.2)."""
    if not _TOKEN.fullmatch(name):
        raise NotSentError("The name of a header for the server is not valid; nothing was sent.")
    return name.lower()


def _without_framing(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name not in _FRAMING}


def _encode(headers: Mapping[str, str]) -> bytes:
    """Return header lines; raises `NotSentError` if a line break or a NUL would end a header early."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    count = len(headers)
    if lines.count("\r") != count or lines.count("\n") != count or "\0" in lines:
        raise NotSentError("A header for the server contains a line break; nothing was sent.")
    try:
        return lines.encode()
    except UnicodeEncodeError as error:
        raise NotSentError("A header for the server is not valid text; nothing was sent.") from error
