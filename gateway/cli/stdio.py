"""`okayed stdio`: connects one client on stdin and stdout to a gateway.

With `--url` it joins that gateway. With a config it joins the gateway at the config's address; if there is none, it
runs one in this process.
"""

import asyncio
import json
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from approvals.errors import ApprovalError
from gateway.config.addresses import SOCKET_URL, UNIX, is_http_url, local_address
from gateway.errors import GatewayError, NotSentError, UserError
from gateway.fronts import RUN
from gateway.fronts.stdio import MAX_LINE, StdioFront
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http import HttpUpstream
from gateway.upstreams.http1.pool import ConnectionPool
from gateway.upstreams.reply import Reply, read_body
from gateway.wire import protocol

#: Seconds that a request waits for a gateway: less than the 60 s timeout of common clients.
MAX_WAIT = 50.0
#: Seconds between health checks of a gateway, and the timeout of a check.
PAUSE = 0.25
CHECK_TIMEOUT = 5.0


async def run(server: str, path: Path, url: str) -> None:
    """Serve one client through the gateway at *url*, or if *url* is "", through the gateway of the config at *path*."""
    token = os.environ.get("OKAYED_AGENT_TOKEN", "").strip()
    address = check_url(url) if url else _configured_address(path)
    async with open_client(address) as http, asyncio.TaskGroup() as tasks:
        if url:
            await _serve(GatewayLocator(server, token, http, at=address))
            return
        disconnected = asyncio.Event()

        async def start_gateway() -> str:
            from gateway.cli.embedded import EmbeddedGateway

            return await EmbeddedGateway(path, server, token, tasks, disconnected).start()

        locator = GatewayLocator(server, token, http, at=address, start_gateway=start_gateway)
        await locator.find_gateway()
        await _serve(locator)
        disconnected.set()


def _configured_address(path: Path) -> str:
    from gateway.app.config_file import read_listen  # with a YAML parser

    return local_address(read_listen(path, os.environ))


async def _serve(locator: "GatewayLocator") -> None:
    await StdioFront(await _open_stdin(), _stdout_writer(), locator.exchange).run()


def check_url(url: str) -> str:
    """Return the address of a gateway without `/mcp/...`; raises `UserError`."""
    if not (url.startswith(UNIX) or is_http_url(url)):
        raise UserError(f"{url} is not the address of a gateway; write one such as http://127.0.0.1:8808")
    return url.partition("/mcp/")[0].rstrip("/")


def open_client(address: str) -> ConnectionPool:
    """Return the connections to the gateway at *address*: an http(s) URL or `unix:/path`."""
    return ConnectionPool(path=address.removeprefix(UNIX) if address.startswith(UNIX) else "")


class GatewayLocator:
    """Sends exchanges to the gateway at one address; waits up to `MAX_WAIT` seconds for a gateway that answers."""

    def __init__(
        self,
        server: str,
        token: str,
        http: ConnectionPool,
        *,
        at: str,
        start_gateway: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """*start_gateway*, called while no gateway answers, starts one and returns its URL or raises `NotSentError`."""
        self._at = at
        self._url = SOCKET_URL if at.startswith(UNIX) else at
        self._server = server
        self._credentials = FixedCredentials({"Authorization": f"Bearer {token}"} if token else {})
        self._http = http
        self._start_gateway = start_gateway
        self._lock = asyncio.Lock()
        #: Whether the last gateway was an `okayed run`, which may restart; and why none could be started.
        self._expects_run = False
        self._start_error = ""

    async def exchange(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send one exchange once a gateway accepts it; raises `NotSentError` if none answers in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + MAX_WAIT
        while True:
            try:
                reply = await self._send(verb, body, headers)
                if not _is_retryable(reply) or loop.time() >= until:
                    return reply
                reply.close()
            except NotSentError as error:
                if loop.time() >= until:
                    why = f"No gateway answers at {self._at}; nothing was sent. {self._start_error}"
                    raise NotSentError(why.strip()) from error
            await asyncio.sleep(PAUSE)
            await self._wait_for_gateway(until)

    async def _send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        gateway = HttpUpstream(f"{self._url}/mcp/{self._server}", self._credentials, self._http)
        return await gateway.send(verb, body, headers)

    async def _wait_for_gateway(self, until: float) -> None:
        """Wait until a gateway answers, at most until *until* on the loop's clock."""
        try:
            async with asyncio.timeout_at(until):
                while True:
                    if await self.find_gateway():
                        return
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            return
        except (UserError, ApprovalError, OSError) as error:
            raise NotSentError(f"The gateway could not be started; nothing was sent. {error}") from error

    async def find_gateway(self) -> bool:
        """Return whether a gateway answers; tries to start one if none does."""
        async with self._lock:
            if role := await self._role():
                self._expects_run = role == RUN
                return True
            if self._start_gateway is None or self._expects_run:
                return False
            try:
                self._url = await self._start_gateway()
            except NotSentError as error:
                self._start_error = str(error)
                return False
            return True

    async def _role(self) -> str:
        """Return the role of the gateway that answers, or "" if none does."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                answer = await HttpUpstream(f"{self._url}/healthz", FixedCredentials(), self._http).send(
                    "GET", b"", {}
                )
                try:
                    if self._start_gateway is None:
                        return RUN  # a proxy in front of a remote gateway need not forward /healthz
                    body = await read_body(answer)
                finally:
                    answer.close()
            return str(json.loads(body)["role"]) if answer.status == 200 else ""
        except (GatewayError, TimeoutError, ValueError, LookupError, TypeError):
            return ""


def _is_retryable(reply: Reply) -> bool:
    """Return whether a gateway refused an exchange without sending it, for example because it is stopping."""
    return reply.status == 503 and bool(reply.header(protocol.UNSENT_HEADER))


async def _open_stdin() -> asyncio.StreamReader:
    """Return a reader of stdin; raises `UserError` for a file or /dev/null, which an event loop cannot wait for."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty()):
        raise UserError("stdin must be a pipe; let an MCP client start this command.")
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


def _stdout_writer() -> Callable[[bytes], Awaitable[None]]:
    """Return a function that writes one frame as one line, in a thread: a slow client must not block the loop."""
    lock = asyncio.Lock()

    async def write(frame: bytes) -> None:
        line = frame.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"
        async with lock:
            await asyncio.to_thread(_write_out, line)

    return write


def _write_out(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
