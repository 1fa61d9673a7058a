"""Runs a gateway inside an `okayed stdio` process, which other `okayed stdio` processes can join."""

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
from gateway.app.stores import MEMORY, store_path
from gateway.auth.agents import AuthenticationFailed
from gateway.config.addresses import SOCKET_URL, parse_host_and_port
from gateway.config.options import Config, listen_address
from gateway.errors import NotSentError, UserError, first_error

#: Seconds between checks for an `okayed run` that waits for the store.
POLL = 1.0


@dataclass(frozen=True, slots=True)
class EmbeddedGateway:
    """A gateway in this process. It stops when its client disconnects, or when an `okayed run` waits for its store."""

    #: The config file, the name of the client's server, and the client's token.
    path: Path
    server: str
    token: str = field(repr=False)
    #: The group of the gateway's task, and the event that is set when the client disconnects.
    tasks: asyncio.TaskGroup
    disconnected: asyncio.Event

    async def start(self) -> str:
        """Start a gateway and return its URL.

        Raises `NotSentError` while another process has its store or address, `UserError` for an unknown client.
        """
        config = load_config(self.path, os.environ)
        check_server_name(config, self.server)
        if _run_is_waiting(config):
            raise NotSentError("An `okayed run` has the store but is not listening yet.")
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.tasks.create_task(self._run(config, url))
        try:
            return await asyncio.shield(url)  # a cancelled request does not cancel the start
        except StoreTaken as error:
            raise NotSentError(str(error)) from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise NotSentError(str(error)) from error
            raise

    async def _run(self, config: Config, url: asyncio.Future[str]) -> None:
        """Run a gateway until the client disconnects; sets *url* to its URL, or to the error of a failed start."""
        try:
            async with assemble(config, embedded=True) as gateway:
                await self._check_client(gateway)
                async with serve(gateway) as endpoints:
                    tcp = parse_host_and_port(listen_address(config.listen)) is not None
                    url.set_result(endpoints.agents.removesuffix("/mcp/") if tcp else SOCKET_URL)
                    await self._wait_for_end(config)
        except Exception as error:
            if url.done():
                raise
            url.set_exception(first_error(error))

    async def _wait_for_end(self, config: Config) -> None:
        """Return when the client has disconnected, or an `okayed run` waits for the store."""
        while not self.disconnected.is_set() and not _run_is_waiting(config):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.disconnected.wait(), POLL)

    async def _check_client(self, gateway: Gateway) -> None:
        """Raise `UserError` unless the client is an agent of the config."""
        try:
            await gateway.agents.authenticate([f"Bearer {self.token}"], self.server)
        except AuthenticationFailed as error:
            raise UserError("Set OKAYED_AGENT_TOKEN to the token of an agent of the config.") from error


def _run_is_waiting(config: Config) -> bool:
    """Return whether an `okayed run` holds the run lock of the store."""
    return config.store != MEMORY and is_held_by_run(store_path(config.store))
