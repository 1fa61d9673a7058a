"""The agents' listener in front of a proxy whose answers a test scripts."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

from gateway.auth.agents import LOCAL
from gateway.call.exchange_limits import ExchangeShares
from gateway.call.request import Exchange
from gateway.call.sending import Sending
from gateway.fronts.agents_listener import open_agents_listener
from gateway.fronts.connection_limits import Connections
from gateway.fronts.endpoint import Endpoint, ListenerPolicy
from gateway.upstreams.reply import Reply, frame_reply
from hang import HANG


class Agents:
    """Agents of a config without tokens: everybody is the local agent."""

    def authenticate_at_once(self, authorization, server):
        return LOCAL

    async def authenticate(self, authorization, server):
        return LOCAL


class ScriptedProxy:
    """Answers with the body of the request, unless the test sets `at_once` or `begin`."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(shares=ExchangeShares())
        self.received: list[Exchange] = []
        self.answer: Callable[[Exchange], Awaitable[Reply]] = self.echo
        self.send: Callable[[Exchange], Sending | None] = lambda _: None

    async def echo(self, exchange):
        return frame_reply(exchange.body or b"hello")

    def at_once(self, exchange):
        sending = self.send(exchange)
        if sending is not None:
            self.received.append(exchange)
        return sending

    async def begin(self, exchange):
        self.received.append(exchange)
        return await self.answer(exchange)

    handle = begin


class Raw:
    """A raw connection of a client."""

    def __init__(self, reader, writer) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *parts):
        for part in parts:
            self.writer.write(part)

    async def answers(self, count=1):
        """Read *count* whole answers, and return their statuses and bodies."""
        return [await self._answer() for _ in range(count)]

    async def head(self):
        """Read the head of an answer; return its status and its headers."""
        start, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        return int(start.split()[1]), {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }

    async def chunk(self):
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def _answer(self):
        status, headers = await self.head()
        if "content-length" in headers:
            return status, await self.reader.readexactly(int(headers["content-length"]))
        body = b""
        while headers.get("transfer-encoding") == "chunked" and (chunk := await self.chunk()):
            body += chunk
        return status, body

    async def rest(self):
        return await self.reader.read()

    def close(self):
        self.writer.close()


class Front:
    """A running listener, its proxy, and its connections."""

    def __init__(self, proxy, endpoint, connections, at) -> None:
        self.proxy, self.endpoint, self.connections = proxy, endpoint, connections
        self.host, _, self.port = at.partition(":")

    async def connect(self, *parts):
        raw = Raw(*await asyncio.open_connection(self.host, int(self.port)))
        raw.send(*parts)
        return raw


async def _ready():
    return None


@asynccontextmanager
async def serving(deadlines=None, most=100, agents=None):
    proxy, connections, known = ScriptedProxy(), Connections("agents", most, deadlines), agents or Agents()
    endpoint = Endpoint(proxy, ListenerPolicy(agents=lambda: known, ready=_ready))
    async with asyncio.timeout(HANG), open_agents_listener(endpoint, "127.0.0.1:0", connections) as at:
        yield Front(proxy, endpoint, connections, at)


def post(body=b"{}", *, server="notes", headers=b""):
    """Return a plain request; with *headers* it may be an odd one."""
    return (
        b"POST /mcp/%b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
        % (server.encode(), headers, len(body), body)
    )  # fmt: skip


#: A header that makes a request odd, so that aiohttp serves it and its connection.
ODD = b"X-Odd: 1\r\nX-Odd: 2\r\n"
