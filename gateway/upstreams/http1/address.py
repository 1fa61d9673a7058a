"""The URL of a server, split into the parts that a connection and a request head need."""

import base64
import re
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import SplitResult, quote, unquote, urlsplit

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+(%[a-z0-9._-]+)?")
#: Characters that stay in a path or query; others are percent-encoded (RFC 3986, section 3.3).
_SAFE = "/?%:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class Address:
    """The origin, the request target and the user of one URL."""

    scheme: str
    host: str
    port: int
    #: Path and query.
    target: str
    #: The Basic credentials of the user in the URL, or "".
    authorization: str = field(default="", repr=False)

    @property
    def origin(self) -> str:
        """Scheme, host and port; connections are shared between addresses of one origin."""
        return f"{self.scheme}://{self.host_header}"

    @property
    def host_header(self) -> str:
        """The Host header, without the default port."""
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@lru_cache(maxsize=64)
def parse_address(url: str) -> Address:
    """Parse an http or https URL; raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("not an http or https URL")
    target = quote(parts.path or "/", safe=_SAFE) + (
        f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
    )
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    return Address(parts.scheme, _parse_host(parts), port, target, _basic(parts))


def _parse_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = host if host.isascii() else host.encode("idna").decode("ascii")
    if not _HOST.fullmatch(host):
        raise ValueError("not a host name")
    return host


def _basic(parts: SplitResult) -> str:
    if parts.username is None and parts.password is None:
        return ""
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
