"""`holdpoint stdio`: joins the gateway that is listening already, else runs one inside for as long as stdin is open."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from approvals.errors import StoreError
from gateway.agents import Agent, Refused
from gateway.app import Gateway, assembled
from gateway.config import address, known_server, load
from gateway.errors import UserError
from gateway.incoming import Incoming
from gateway.options import Config
from gateway.serving import serving
from gateway.stdio import MAX_LINE, Exchange, StdioFront
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
    async with AsyncExitStack() as stack:
        exchange = await _exchange(server, config, stack)
        await StdioFront(await _stdin(), _to_stdout(), exchange).run()


async def _exchange(server: str, config: Config, stack: AsyncExitStack) -> Exchange:
    """Join the gateway that listens, or become it; of several commands that start at once, one does."""
    http = await stack.enter_async_context(pool())
    token = os.environ.get("HOLDPOINT_AGENT_TOKEN", "")
    for left in reversed(range(TRIES)):
        if await _listening(config, http):
            credentials = {"Authorization": f"Bearer {token}"} if token else {}
            return HttpUpstream(f"{_base(config)}/mcp/{server}", Fixed(credentials), http).send
        try:
            gateway = await _started(config, stack)
        except (StoreError, OSError):
            if not left:
                raise
            await asyncio.sleep(PAUSE)
        else:
            return _inside(gateway, await _agent(gateway, token, server), server)
    raise AssertionError("the last try returns or raises")


async def _started(config: Config, stack: AsyncExitStack) -> Gateway:
    async with AsyncExitStack() as trial:
        gateway = await trial.enter_async_context(assembled(config))
        await trial.enter_async_context(serving(gateway))
        stack.push_async_exit(trial.pop_all())
        return gateway


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
    if address(config.listen) is None:
        return False
    try:
        async with http.get(f"{_base(config)}/healthz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def _base(config: Config) -> str:
    return f"http://{config.listen}"


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
