"""One server whose connection the config may renew: with a rotated token, say, or another `may_ask`."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.upstreams import Upstream
from gateway.upstreams.reply import Reply


@dataclass
class ReplaceableUpstream:
    """The newest connection to one server. A call that waits goes out over it, and never to another server."""

    inner: Upstream

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange over the newest connection."""
        return await self.inner.send(verb, body, headers)

    def knows(self, headers: Mapping[str, str]) -> bool | None:
        """Say whether the newest connection has the session of *headers*."""
        return self.inner.knows(headers)

    async def close(self) -> None:
        """Close the newest connection."""
        await self.inner.close()

    def renew(self, inner: Upstream) -> Upstream:
        """Use *inner* from now on; returns the connection before, for the caller to close."""
        before, self.inner = self.inner, inner
        return before
