"""aiohttp's client, for everything but MCP servers: token endpoints, keys and checkpoints."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp


class LateClient:
    """A client session. It is opened, and aiohttp imported, when it is first used."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> "aiohttp.ClientSession":
        """Return the open session."""
        if self._session is None:
            from gateway.upstreams.client_session import open_client_session

            self._session = open_client_session()
        return self._session

    async def close(self) -> None:
        """Close the session if it was opened."""
        if self._session is not None:
            await self._session.close()
