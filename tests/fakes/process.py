"""Runs Okayed as users do: the command in its own process, with a config file."""

import asyncio
import hashlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from watchfiles import awatch

from hang import HANG

OKAYED = str(Path(sys.executable).parent / "okayed")
#: A server of the config: a child with the tools of the demo's shop.
SHOP = f"{{command: [{sys.executable}, {Path(__file__).with_name('shop.py')}]}}"


def token(name: str) -> str:
    return f"{name}-secret-token"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def free_ports(count: int) -> list[int]:
    """Return free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Process:
    """One gateway process. It can be killed and started again on the same config."""

    def __init__(self, config: Path, agents_port: int, inbox_port: int) -> None:
        self.config = config
        self.agents = f"http://127.0.0.1:{agents_port}"
        self.inbox = f"http://127.0.0.1:{inbox_port}"
        self.log = config.with_suffix(".log")
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *before: str, options: Sequence[str] = ()) -> None:
        """Start it with *options*, prefixed by the command *before*, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *before, OKAYED, "run", "-c", str(self.config), *options, stderr=log, stdout=log
            )
        async with asyncio.timeout(HANG), aiohttp.ClientSession() as http:
            while not await _answers(http, f"{self.inbox}/healthz"):
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)  # no other event to wait for: another process starts

    async def ready(self) -> None:
        """Wait until the gateway is ready."""
        async with asyncio.timeout(HANG), aiohttp.ClientSession() as http:
            while not await _answers(http, f"{self.agents}/readyz"):
                await asyncio.sleep(0.02)  # no other event to wait for: another process works

    async def kill(self) -> None:
        """Kill it with SIGKILL, after it has answered the requests that it has stored.

        The check of /readyz is a commit, which is answered after theirs.
        """
        async with aiohttp.ClientSession() as http:
            await _answers(http, f"{self.agents}/readyz")
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.send_signal(signal.SIGTERM)
        return await self.wait()

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        async with asyncio.timeout(HANG):
            return await self.process.wait()

    async def wait_for_log(self, words: str) -> None:
        """Wait until the log has these words."""
        async with asyncio.timeout(HANG):
            # The timeout catches words that were logged before the watch started.
            async for _ in awatch(self.log, debounce=50, rust_timeout=100, yield_on_timeout=True):
                if words in self.log.read_text():
                    return

    async def command(self, *args: str, who: str = "alice") -> tuple[int, str, str]:
        """Run another okayed command against this gateway; returns exit code, stdout, stderr."""
        env = {**os.environ, "OKAYED_TOKEN": token(who), "OKAYED_URL": self.inbox, "COLUMNS": "200"}
        process = await asyncio.create_subprocess_exec(
            OKAYED, *args, "-c", str(self.config), env=env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


def notes_gateway(folder: Path, url: str, policy: str = "{default: require_approval}") -> Process:
    """Return a gateway that is not started yet, with one server at *url* and the approver alice."""
    agents, inbox = free_ports(2)
    config = folder / "okayed.yaml"
    config.write_text(
        f"listen: 127.0.0.1:{agents}\nstore: sqlite:///okayed.db\ninbox: {{listen: '127.0.0.1:{inbox}'}}\n"
        f"servers: {{notes: {{url: '{url}'}}}}\n"
        f"approvers: [{{name: alice, token_sha256: {sha256(token('alice'))}}}]\npolicy: {policy}\n"
    )
    config.chmod(0o600)
    return Process(config, agents, inbox)


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def gateway_process(config: Path, agents_port: int, inbox_port: int):
    process = Process(config, agents_port, inbox_port)
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


class Person:
    """An approver who uses the API and the pages of the inbox."""

    def __init__(self, inbox: str, name: str = "alice") -> None:
        self.inbox = inbox
        self.name = name

    async def __aenter__(self) -> "Person":
        jar = aiohttp.CookieJar(unsafe=True)
        self.api = aiohttp.ClientSession(headers={"Authorization": f"Bearer {token(self.name)}"})
        self.pages = aiohttp.ClientSession(cookie_jar=jar, headers={"Origin": self.inbox})
        return self

    async def __aexit__(self, *_) -> None:
        await self.api.close()
        await self.pages.close()

    async def waiting(self, about: str = "") -> dict:
        """Wait until a call with this text in its arguments is pending, and return it."""
        async with asyncio.timeout(HANG), self.api.get(f"{self.inbox}/api/v1/events") as events:
            assert events.status == 200
            while not (
                found := [one for one in await self.calls("pending") if about in one["arguments_text"]]
            ):
                await events.content.readline()
            return found[0]

    async def until(self, so) -> None:
        """Wait until *so* is true for one of the calls."""
        async with asyncio.timeout(HANG), self.api.get(f"{self.inbox}/api/v1/events") as events:
            while not any(so(call) for call in await self.calls()):
                await events.content.readline()

    async def calls(self, state: str = "") -> list[dict]:
        async with self.api.get(
            f"{self.inbox}/api/v1/calls", params={"state": state} if state else {}
        ) as answer:
            return (await answer.json())["calls"]

    async def call(self, call_id: str) -> dict:
        async with self.api.get(f"{self.inbox}/api/v1/calls/{call_id}") as answer:
            return await answer.json()

    async def post(self, call_id: str, verb: str, **body) -> tuple[int, dict]:
        async with self.api.post(f"{self.inbox}/api/v1/calls/{call_id}/{verb}", json=body) as answer:
            return answer.status, await answer.json()

    async def log_in(self) -> None:
        form = {"token": token(self.name), "next": "/"}
        async with self.pages.post(f"{self.inbox}/login", data=form) as answer:
            assert answer.status == 200, await answer.text()

    async def page(self, path: str) -> str:
        async with self.pages.get(self.inbox + path) as answer:
            assert answer.status == 200
            return await answer.text()

    async def press(self, path: str, **form) -> str:
        async with self.pages.post(self.inbox + path, data=form) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()
