"""The gateway inside an `okayed stdio`, which others join as they would any other."""

import asyncio
import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from approvals.errors import StoreTaken
from approvals.store.run_lock import of_a_run
from gateway.app.config import known_server, load
from gateway.app.gateway import MEMORY, Gateway, assembled, database
from gateway.app.serving import serving
from gateway.auth.agents import AuthenticationFailed
from gateway.config.addresses import address
from gateway.config.options import Config, place
from gateway.errors import NotSentError, UserError, first

#: Seconds between two looks whether a `run` wants the store.
LOOK = 1.0
#: The URL of whatever listens on a Unix socket.
LOCAL = "http://localhost"


@dataclass(frozen=True, slots=True)
class Inside:
    """A gateway that runs in this process from when it is needed until its client leaves, or a `run` takes its place."""

    #: The config, the server that the client uses, and the token that it comes with.
    path: Path
    server: str
    token: str = field(repr=False)
    #: What runs the gateway, and what is set when the client has left.
    tasks: asyncio.TaskGroup
    left: asyncio.Event

    async def started(self) -> str:
        """Start a gateway and return its URL.

        Raises `NotSentError` while another has its store or its address, `UserError` when the config does not allow it.
        """
        config = load(self.path, os.environ)
        known_server(config, self.server)
        if _wanted(config):
            raise NotSentError("An `okayed run` has the config's store, and does not listen yet.")
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.tasks.create_task(self._run(config, url))
        try:
            return await asyncio.shield(url)  # the request may be cancelled; the gateway still starts
        except StoreTaken as error:
            raise NotSentError(str(error)) from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise NotSentError(str(error)) from error
            raise

    async def _run(self, config: Config, url: asyncio.Future[str]) -> None:
        """Run a gateway until the client leaves. *url* gets its URL, or the error that keeps it from starting."""
        try:
            async with assembled(config, inside=True) as gateway:
                await self._checked(gateway)
                async with serving(gateway) as listening:
                    tcp = address(place(config.listen)) is not None
                    url.set_result(listening.agents.removesuffix("/mcp/") if tcp else LOCAL)
                    await self._until_over(config)
        except Exception as error:
            if url.done():
                raise
            url.set_exception(first(error))

    async def _until_over(self, config: Config) -> None:
        """Return when the client has left, or a `run` wants the store."""
        while not self.left.is_set() and not _wanted(config):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.left.wait(), LOOK)

    async def _checked(self, gateway: Gateway) -> None:
        """Raise `UserError` unless the client is an agent of the config."""
        try:
            await gateway.agents.authenticate([f"Bearer {self.token}"], self.server)
        except AuthenticationFailed as error:
            raise UserError("Set OKAYED_AGENT_TOKEN to the token of an agent of the config.") from error


def _wanted(config: Config) -> bool:
    """Say whether a `run` has the turn at the config's store."""
    return config.store != MEMORY and of_a_run(database(config.store))
