"""`okayed stdio`: one client on stdin and stdout, and behind it the gateway that listens.

With `--url` it only joins. With a config it joins as well, and runs a gateway in this process while there is none to join.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp

from approvals.errors import ApprovalError
from gateway.app.config_file import read_listen
from gateway.config.addresses import is_http_url, local_address
from gateway.errors import NotSentError, UserError
from gateway.fronts import RUN
from gateway.fronts.stdio import MAX_LINE, StdioFront
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http import HttpUpstream, open_client_session
from gateway.upstreams.reply import Reply
from gateway.wire import protocol

#: What an address that is a Unix socket begins with, and the name by which requests over one call the gateway.
UNIX = "unix:"
LOCAL = "http://localhost"
#: Seconds for which a request waits for a gateway that does not answer: less than the 60 s after which common clients give up.
PATIENCE = 50.0
#: Seconds between two looks whether it answers, and for which such a look may last.
PAUSE = 0.25
LOOK = aiohttp.ClientTimeout(total=5.0)


async def run(server: str, path: Path, url: str) -> None:
    """Serve one client: with the gateway at *url*, or the one that the config at *path* describes when *url* is ""."""
    token = os.environ.get("OKAYED_AGENT_TOKEN", "").strip()
    place = check_url(url) if url else local_address(read_listen(path, os.environ))
    async with open_client(place) as http, asyncio.TaskGroup() as tasks:
        if url:
            await _serve(GatewayLocator(server, token, http, at=place))
            return
        left = asyncio.Event()

        async def start_gateway() -> str:
            from gateway.cli.embedded import EmbeddedGateway

            return await EmbeddedGateway(path, server, token, tasks, left).start()

        locator = GatewayLocator(server, token, http, at=place, start_gateway=start_gateway)
        await locator.find_gateway()
        await _serve(locator)
        left.set()


async def _serve(locator: "GatewayLocator") -> None:
    await StdioFront(await _stdin(), _to_stdout(), locator.exchange).run()


def check_url(url: str) -> str:
    """Return the address of a gateway, without what names one of its servers; raises `UserError`."""
    if not (url.startswith(UNIX) or is_http_url(url)):
        raise UserError(f"{url} is no address of a gateway; write one such as http://127.0.0.1:8808")
    return url.partition("/mcp/")[0].rstrip("/")


def open_client(place: str) -> aiohttp.ClientSession:
    """Return what reaches the gateway at *place*: `http(s)://...`, or `unix:/path`."""
    return open_client_session(place.removeprefix(UNIX) if place.startswith(UNIX) else "")


class GatewayLocator:
    """The way to the gateway at one address. While none answers there, exchanges wait, for `PATIENCE` seconds at most."""

    def __init__(
        self,
        server: str,
        token: str,
        http: aiohttp.ClientSession,
        *,
        at: str,
        start_gateway: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """*instead* is called while no gateway answers: it starts one and returns its URL, or raises `NotSentError`."""
        self._at = at
        self._url = LOCAL if at.startswith(UNIX) else at
        self._server = server
        self._own = FixedCredentials({"Authorization": f"Bearer {token}"} if token else {})
        self._http = http
        self._instead = start_gateway
        self._looking = asyncio.Lock()
        #: Whether the gateway that answered last was a `run`, which is waited for, and why none was started.
        self._of_a_run = False
        self._why = ""

    async def exchange(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange, when a gateway takes it; raises `NotSentError` when none answered in time, so nothing was sent."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            try:
                reply = await self._sent(verb, body, headers)
                if not _is_retryable(reply) or loop.time() >= until:
                    return reply
                reply.close()
            except NotSentError as error:
                if loop.time() >= until:
                    why = f"No gateway answers at {self._at}; nothing was sent. {self._why}"
                    raise NotSentError(why.strip()) from error
            await asyncio.sleep(PAUSE)
            await self._back(until)

    async def _sent(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        gateway = HttpUpstream(f"{self._url}/mcp/{self._server}", self._own, self._http)
        return await gateway.send(verb, body, headers)

    async def _back(self, until: float) -> None:
        """Wait until a gateway answers, or the loop's clock says *until*."""
        try:
            async with asyncio.timeout_at(until):
                while True:
                    if await self.find_gateway():
                        return
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            return
        except (UserError, ApprovalError, OSError) as error:
            raise NotSentError(f"No gateway could be started; nothing was sent. {error}") from error

    async def find_gateway(self) -> bool:
        """Say whether a gateway answers, be it one that is started now."""
        async with self._looking:
            if role := await self._role():
                self._of_a_run = role == RUN
                return True
            if self._instead is None or self._of_a_run:
                return False
            try:
                self._url = await self._instead()
            except NotSentError as error:
                self._why = str(error)
                return False
            return True

    async def _role(self) -> str:
        """Return what the gateway that answers says it is; "" when none answers."""
        try:
            async with self._http.get(f"{self._url}/healthz", timeout=LOOK) as answer:
                if self._instead is None:
                    return RUN  # what stands in front of a gateway elsewhere need not pass this on
                return str((await answer.json())["role"]) if answer.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError):
            return ""


def _is_retryable(reply: Reply) -> bool:
    """Say whether a gateway refuses an exchange for now, as one that stops does, and sent nothing on."""
    return reply.status == 503 and bool(reply.header(protocol.UNSENT_HEADER))


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
