"""The gateway inside an `okayed stdio`, which others join as they would any other."""

import asyncio
import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from approvals.errors import StoreTaken
from approvals.store.run_lock import is_held_by_run
from gateway.app.config import check_server_name, load_config
from gateway.app.gateway import Gateway, assemble
from gateway.app.serving import serve
from gateway.app.stores import MEMORY, database_path
from gateway.auth.agents import AuthenticationFailed
from gateway.config.addresses import host_and_port
from gateway.config.options import Config, listen_address
from gateway.errors import NotSentError, UserError, first_error

#: Seconds between two looks whether a `run` wants the store.
LOOK = 1.0
#: The URL of whatever listens on a Unix socket.
LOCAL = "http://localhost"


@dataclass(frozen=True, slots=True)
class EmbeddedGateway:
    """A gateway that runs in this process from when it is needed until its client leaves, or a `run` takes its place."""

    #: The config, the server that the client uses, and the token that it comes with.
    path: Path
    server: str
    token: str = field(repr=False)
    #: What runs the gateway, and what is set when the client has left.
    tasks: asyncio.TaskGroup
    left: asyncio.Event

    async def start(self) -> str:
        """Start a gateway and return its URL.

        Raises `NotSentError` while another has its store or its address, `UserError` when the config does not allow it.
        """
        config = load_config(self.path, os.environ)
        check_server_name(config, self.server)
        if _run_is_waiting(config):
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
            async with assemble(config, embedded=True) as gateway:
                await self._checked(gateway)
                async with serve(gateway) as listening:
                    tcp = host_and_port(listen_address(config.listen)) is not None
                    url.set_result(listening.agents.removesuffix("/mcp/") if tcp else LOCAL)
                    await self._until_over(config)
        except Exception as error:
            if url.done():
                raise
            url.set_exception(first_error(error))

    async def _until_over(self, config: Config) -> None:
        """Return when the client has left, or a `run` wants the store."""
        while not self.left.is_set() and not _run_is_waiting(config):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.left.wait(), LOOK)

    async def _checked(self, gateway: Gateway) -> None:
        """Raise `UserError` unless the client is an agent of the config."""
        try:
            await gateway.agents.authenticate([f"Bearer {self.token}"], self.server)
        except AuthenticationFailed as error:
            raise UserError("Set OKAYED_AGENT_TOKEN to the token of an agent of the config.") from error


def _run_is_waiting(config: Config) -> bool:
    """Say whether a `run` has the turn at the config's store."""
    return config.store != MEMORY and is_held_by_run(database_path(config.store))
