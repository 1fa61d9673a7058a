"""`holdpoint stdio`: joins the gateway that is listening already, else runs one inside for as long as stdin is open."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp

from approvals.errors import StoreError
from gateway.addresses import address
from gateway.agents import Agent, Refused
from gateway.app import Gateway, assembled
from gateway.config import known_server, load
from gateway.conversation import Exchange
from gateway.errors import NotSentError, UserError
from gateway.incoming import Incoming
from gateway.options import Config
from gateway.serving import serving
from gateway.stdio import MAX_LINE, StdioFront
from gateway.upstreams import Reply
from gateway.upstreams.credentials import Fixed
from gateway.upstreams.http import HttpUpstream, pool

#: How often, and how many seconds apart, to look again when another command is just starting the gateway.
TRIES = 20
PAUSE = 0.5


async def run(server: str, path: Path) -> None:
    """Serve one client on stdin and stdout."""
    config = load(path, os.environ)
    known_server(config, server)
    async with to_gateway(config) as http, asyncio.TaskGroup() as tasks:
        way = Way(config, server, http, tasks)
        await way.find(None)
        await StdioFront(await _stdin(), _to_stdout(), way.exchange).run()
        way.leave()


def to_gateway(config: Config) -> aiohttp.ClientSession:
    """Return what reaches the gateway of this config, should one listen."""
    return pool(config.listen.removeprefix("unix:") if address(config.listen) is None else "")


class Way:
    """The way to a gateway of this config: to the one that listens, or to one in this process.

    Of several commands that start at once, or whose gateway went away with the command it ran in, one becomes the next.
    """

    def __init__(
        self, config: Config, server: str, http: aiohttp.ClientSession, tasks: asyncio.TaskGroup
    ) -> None:
        self._config = config
        self._server = server
        self._http = http
        self._tasks = tasks
        self._token = os.environ.get("HOLDPOINT_AGENT_TOKEN", "")
        self._found: Exchange | None = None
        self._finding = asyncio.Lock()
        self._left = asyncio.Event()

    async def exchange(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; when the gateway is gone and nothing was sent, with the next one."""
        found = self._found or await self.find(None)
        try:
            return await found(verb, body, headers)
        except NotSentError:
            return await (await self.find(found))(verb, body, headers)

    async def find(self, lost: Exchange | None) -> Exchange:
        """Find a gateway in place of the one that is *lost*, unless another exchange has found one meanwhile."""
        async with self._finding:
            if self._found is None or self._found is lost:
                self._found = await self._joined_or_started()
            return self._found

    def leave(self) -> None:
        """End the gateway of this process, if it has one."""
        self._left.set()

    async def _joined_or_started(self) -> Exchange:
        for left in reversed(range(TRIES)):
            if await _listening(self._config, self._http):
                credentials = {"Authorization": f"Bearer {self._token}"} if self._token else {}
                return HttpUpstream(
                    f"{_base(self._config)}/mcp/{self._server}", Fixed(credentials), self._http
                ).send
            try:
                gateway = await self._started()
            except (StoreError, OSError):
                if not left:
                    raise
                await asyncio.sleep(PAUSE)
            else:
                return _inside(gateway, await _agent(gateway, self._token, self._server), self._server)
        raise AssertionError("the last try returns or raises")

    async def _started(self) -> Gateway:
        started: asyncio.Future[Gateway] = asyncio.get_running_loop().create_future()
        self._tasks.create_task(self._run(started))
        return await asyncio.shield(started)  # whoever waits for it may leave; it starts all the same

    async def _run(self, started: asyncio.Future[Gateway]) -> None:
        """Run a gateway until the client leaves; what keeps it from starting is told to who waits for it."""
        try:
            async with assembled(self._config) as gateway, serving(gateway):
                started.set_result(gateway)
                await self._left.wait()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)


async def _agent(gateway: Gateway, token: str, server: str) -> Agent:
    try:
        return await gateway.agents.authenticate([f"Bearer {token}"], server)
    except Refused as error:
        raise UserError("Set HOLDPOINT_AGENT_TOKEN to the token of an agent of the config.") from error


def _inside(gateway: Gateway, agent: Agent, server: str) -> Exchange:
    async def exchange(verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        pairs = tuple((name.lower(), value) for name, value in headers.items())
        return await gateway.proxy.handle(
            Incoming(agent=agent, server=server, verb=verb, body=body, pairs=pairs)
        )

    return exchange


async def _listening(config: Config, http: aiohttp.ClientSession) -> bool:
    """Say whether a gateway of this config listens already."""
    try:
        async with http.get(f"{_base(config)}/healthz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def _base(config: Config) -> str:
    """Return how the gateway is addressed; behind a Unix socket any name of this machine will do."""
    return "http://localhost" if address(config.listen) is None else f"http://{config.listen}"


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


def _to_stdout() -> Callable[[bytes], Awaitable[None]]:
    """Return what writes one frame as one line. A client that does not read holds up its own answers only."""
    turn = asyncio.Lock()

    async def write(frame: bytes) -> None:
        line = frame.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"
        async with turn:
            await asyncio.to_thread(_write_out, line)

    return write


def _write_out(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
