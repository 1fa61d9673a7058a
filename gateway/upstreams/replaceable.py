"""An upstream whose connection a config reload can replace, for example for a rotated token or another `may_ask`."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.upstreams import Line, Upstream
from gateway.upstreams.reply import Reply


@dataclass
class ReplaceableUpstream:
    """The current connection to one server. A waiting call is sent over it, and never to another server."""

    inner: Upstream

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange over the current connection."""
        return await self.inner.send(verb, body, headers)

    def line(self) -> Line | None:
        """Reserve a current connection; see `Upstream.line`."""
        return self.inner.line()

    def knows(self, headers: Mapping[str, str]) -> bool | None:
        """Return whether the current connection has the session in *headers*."""
        return self.inner.knows(headers)

    async def close(self) -> None:
        """Close the current connection."""
        await self.inner.close()

    def renew(self, inner: Upstream) -> Upstream:
        """Switch to *inner*; returns the previous connection, which the caller closes."""
        before, self.inner = self.inner, inner
        return before
