"""Measures how an attack by one agent or an outsider slows down others: allowed calls, holds, the inbox's list.

`python bench/neighbours.py [--seconds N] [--tree DIR]`. The server, the gateway and the load each run in their own
process on this machine. `--tree` measures the gateway of another checkout, for example from before a change. Every
attack is bounded in number and time. A request that is refused or takes longer than TIMEOUT has failed.
"""

import argparse
import asyncio
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp_relay import HEADERS
from processes import ROOT, free_ports, wait_for_listener
from server import RESULTS

#: Seconds until a request has failed.
TIMEOUT = 5.0
#: The sizes of the attacks: numbers of requests, and bytes of a call and of an event.
HANGING = 1005
HALF_WRITTEN = 1024
BIG_HOLDS = 98
BIG = 3_900_000
EVENT = 15 << 20
CHUNK = 16 << 10
LINE = b"data: x\n"
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-token", **HEADERS}


def call(tool: str, number: int, size: int = 200, **meta: int) -> bytes:
    params = {"name": tool, "arguments": {"number": number, "text": "x" * size}, "_meta": meta}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


# The server: it answers at once, never, or with one very long event.


async def answer(request: web.Request) -> web.StreamResponse:
    frame = json.loads(await request.read())
    if "id" not in frame:
        return web.Response(status=202)
    if frame["method"] != "tools/call" or request.path == "/fast":
        text = {"content": [{"type": "text", "text": "done"}], "resultType": "complete"}
        result = RESULTS.get(frame["method"], text)
        return web.json_response({"jsonrpc": "2.0", "id": frame["id"], "result": result})
    if request.path == "/hang":
        await asyncio.Event().wait()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for _ in range(EVENT // CHUNK):
        await response.write(LINE * (CHUNK // len(LINE)))
        await asyncio.sleep(0.001)  # each chunk arrives separately
    await response.write(b"\n")
    return response


async def serve(port: int) -> None:
    app = web.Application(client_max_size=8 << 20)
    for path in ("/fast", "/hang", "/big"):
        app.router.add_post(path, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    await asyncio.Event().wait()


# The gateway


def write_config(folder: Path, server_port: int, agents: int, inbox: int) -> Path:
    file = folder / "okayed.yaml"
    hashes = {
        name: hashlib.sha256(f"{name}-token".encode()).hexdigest() for name in ("good", "bad", "person")
    }
    server = f"http://127.0.0.1:{server_port}"
    file.write_text(
        f"listen: 127.0.0.1:{agents}\nstore: sqlite:///{folder}/bench.db\n"
        f"servers: {{fast: {{url: '{server}/fast'}}, hang: {{url: '{server}/hang'}}, big: {{url: '{server}/big', may_ask: []}}}}\n"
        f"agents: [{{name: good, token_sha256: {hashes['good']}}}, {{name: bad, token_sha256: {hashes['bad']}}}]\n"
        f"approvers: [{{name: person, token_sha256: {hashes['person']}}}]\n"
        "approvals: {on_disconnect: cancel}\n"
        "policy: {default: require_approval, matrix: [{category: [Read], action: allow}]}\n"
        f"inbox: {{listen: '127.0.0.1:{inbox}'}}\n"
    )
    file.chmod(0o600)
    return file


@dataclass
class Usage:
    """The CPU time and the resident memory of a process."""

    pid: int

    @property
    def seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def megabytes(self) -> float:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE / 1e6


@dataclass
class Target:
    """The addresses and the process of a gateway."""

    agents: str
    inbox: str
    port: int
    usage: Usage


# The attacks. Each runs while its context is open.


@asynccontextmanager
async def no_attack(_: Target) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def hanging_calls(target: Target) -> AsyncIterator[None]:
    async with post_calls(target, "hang", "get_thing", HANGING):
        yield


@asynccontextmanager
async def large_holds(target: Target) -> AsyncIterator[None]:
    async with post_calls(target, "fast", "create_thing", BIG_HOLDS, BIG, progressToken=1):
        yield


@asynccontextmanager
async def repeated_large_holds(target: Target) -> AsyncIterator[None]:
    async def repeat_calls(http: aiohttp.ClientSession) -> None:
        for number in range(10_000):
            body = call("create_thing", number, BIG, progressToken=1)
            async with http.post(f"{target.agents}/fast", data=body, headers=bearer("bad")) as reply:
                await reply.content.readany()

    async with open_client() as http, run_in_background(repeat_calls(http)):
        yield


@asynccontextmanager
async def endless_events(target: Target) -> AsyncIterator[None]:
    async def repeat_calls(http: aiohttp.ClientSession) -> None:
        for number in range(10_000):
            body = call("get_thing", number)
            with suppress(aiohttp.ClientError):  # a response that is not a frame is cut off
                async with http.post(f"{target.agents}/big", data=body, headers=bearer("bad")) as reply:
                    await reply.read()

    async with open_client() as http, run_in_background(repeat_calls(http)):
        yield


@asynccontextmanager
async def half_written_requests(target: Target) -> AsyncIterator[None]:
    async def half() -> asyncio.StreamWriter | None:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(b"POST /mcp/fast HTTP/1.1\r\nHost: localhost\r\nContent-Le")
            return writer
        return None

    writers = await asyncio.gather(*(half() for _ in range(HALF_WRITTEN)))
    try:
        yield
    finally:
        for writer in filter(None, writers):
            writer.close()


@asynccontextmanager
async def post_calls(
    target: Target, server: str, tool: str, count: int, size: int = 200, **meta: int
) -> AsyncIterator[None]:
    """Keep *count* calls of one agent open."""

    async def post(http: aiohttp.ClientSession, number: int) -> None:
        body = call(tool, number, size, **meta)
        async with http.post(f"{target.agents}/{server}", data=body, headers=bearer("bad")) as reply:
            await reply.read()

    async with open_client() as http, run_in_background(*(post(http, number) for number in range(count))):
        yield


@asynccontextmanager
async def run_in_background(*jobs) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(job) for job in jobs]
    await asyncio.sleep(SETTLE)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def open_client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    )


#: Seconds between the start of an attack and the first measurement.
SETTLE = 1.5
ATTACKS: dict[str, Callable[[Target], object]] = {
    "none": no_attack,
    f"{HANGING} hanging calls to its own server": hanging_calls,
    f"{HALF_WRITTEN} half-written requests without a token": half_written_requests,
    "events of 15 MiB in short lines from its own server": endless_events,
    f"{BIG_HOLDS} holds of 3.9 MB at once": large_holds,
    "holds of 3.9 MB, cancelled and repeated": repeated_large_holds,
}


# Measurements


@dataclass
class Latencies:
    """The durations of successful requests in milliseconds, and the number of failed requests."""

    took: list[float] = field(default_factory=list)
    failed: int = 0

    async def measure(self, request: Callable[[], object]) -> None:
        start = time.perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT):
                await request()
        except (TimeoutError, OSError, aiohttp.ClientError, AssertionError):
            self.failed += 1
            await asyncio.sleep(0.05)
        else:
            self.took.append((time.perf_counter() - start) * 1000)

    def __str__(self) -> str:
        if len(self.took) < 2:
            return f"{'-':>8} {'-':>8} {self.failed:>6}"
        cuts = statistics.quantiles(self.took, n=100, method="inclusive")
        return f"{cuts[49]:>8.1f} {cuts[98]:>8.1f} {self.failed:>6}"


async def send_allowed_call(http: aiohttp.ClientSession, target: Target) -> None:
    async with http.post(f"{target.agents}/fast", data=call("get_thing", 1), headers=bearer("good")) as reply:
        assert b'"done"' in await reply.read()


async def send_held_call(http: aiohttp.ClientSession, target: Target) -> None:
    body = call("create_thing", time.monotonic_ns(), progressToken=1)
    async with http.post(f"{target.agents}/fast", data=body, headers=bearer("good")) as reply:
        first = await reply.content.readany()
        assert b"hold_" in first


async def list_inbox(http: aiohttp.ClientSession, target: Target) -> None:
    url = f"{target.inbox}/api/v1/calls?state=pending&limit=20"
    async with http.get(url, headers=bearer("person")) as reply:
        assert reply.status == 200
        await reply.read()


async def measure(target: Target, seconds: float) -> list[Latencies]:
    async def repeat(request: Callable, pause: float) -> Latencies:
        latencies, end = Latencies(), time.perf_counter() + seconds
        async with open_client() as http:
            while time.perf_counter() < end:
                await latencies.measure(lambda: request(http, target))
                await asyncio.sleep(pause)
        return latencies

    return await asyncio.gather(
        repeat(send_allowed_call, 0.005), repeat(send_held_call, 0.02), repeat(list_inbox, 0.2)
    )


async def compare(
    start_gateway: Callable[[], AbstractContextManager[Target]], seconds: float, only: str
) -> None:
    columns = " ".join(f"{title:>24}" for title in ("allowed call", "hold", "inbox list"))
    print(f"{'attack':51} {columns} {'cpu':>5} {'MB':>6}")
    print(" " * 51, *[f"{'p50':>8} {'p99':>8} {'failed':>6}"] * 3)
    for name, attack in ATTACKS.items():
        if only not in name:
            continue
        with start_gateway() as target:
            await wait_for_listener(target.port)
            async with attack(target):
                spent, start = target.usage.seconds, time.perf_counter()
                latencies = await measure(target, seconds)
                busy = (target.usage.seconds - spent) / (time.perf_counter() - start)
                print(f"{name:51}", *latencies, f"{busy:>5.0%} {target.usage.megabytes:>6.0f}", flush=True)


@contextmanager
def run_process(command: Sequence[str], files: int, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with a limit of *files* open files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard)), **options,
    )  # fmt: skip
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@contextmanager
def run_gateway(server: int, tree: Path) -> Iterator[Target]:
    """Run the gateway of a checkout with a new store and the usual limit of 1,024 open files."""
    with tempfile.TemporaryDirectory() as folder:
        ports = free_ports(["agents", "inbox"])
        command = [
            sys.executable,
            "-m",
            "gateway",
            "run",
            "-c",
            str(write_config(Path(folder), server, **ports)),
        ]
        env = {**os.environ, "PYTHONPATH": str(tree.resolve())}
        with run_process(command, 1024, env=env, cwd=folder) as running:
            yield Target(
                agents=f"http://127.0.0.1:{ports['agents']}/mcp", inbox=f"http://127.0.0.1:{ports['inbox']}",
                port=ports["agents"], usage=Usage(running.pid),
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each attack is measured")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout whose gateway is measured")
    parser.add_argument("--only", default="", help="measure the attacks whose name has this text")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = free_ports(["server"])["server"]
    with run_process([sys.executable, __file__, "--serve", str(port)], hard):
        asyncio.run(compare(lambda: run_gateway(port, options.tree), options.seconds, options.only))


if __name__ == "__main__":
    main()
