"""`holdpoint stdio`: joins the gateway that is listening already, else runs one inside for as long as stdin is open."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from gateway.agents import Agent
from gateway.app import Gateway, assembled
from gateway.config import address, known_server, load
from gateway.errors import UserError
from gateway.options import Config
from gateway.proxy import Incoming
from gateway.serving import serving
from gateway.stdio import MAX_LINE, Exchange, StdioFront
from gateway.upstreams import Reply
from gateway.upstreams.http import HttpUpstream, pool


async def run(server: str, path: Path) -> None:
    """Serve one client on stdin and stdout."""
    config = load(path, os.environ)
    known_server(config, server)
    async with AsyncExitStack() as stack:
        exchange = await stack.enter_async_context(_exchange(server, config))
        await StdioFront(await _stdin(), _to_stdout, exchange).run()


@asynccontextmanager
async def _exchange(server: str, config: Config) -> AsyncIterator[Exchange]:
    async with pool() as http:
        token = os.environ.get("HOLDPOINT_AGENT_TOKEN", "")
        if await _listening(config, http):
            credentials = {"Authorization": f"Bearer {token}"} if token else {}
            yield HttpUpstream(f"{_base(config)}/mcp/{server}", credentials, http).send
            return
        async with assembled(config) as gateway, serving(gateway):
            agent = gateway.agents.authenticate([f"Bearer {token}"])
            if agent is None:
                raise UserError("Set HOLDPOINT_AGENT_TOKEN to the token of an agent of the config.")
            yield _inside(gateway, agent, server)


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


async def _to_stdout(frame: bytes) -> None:
    """Write one line. A client that does not read holds up its own answers only."""
    sys.stdout.buffer.write(frame.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n")
    sys.stdout.buffer.flush()
