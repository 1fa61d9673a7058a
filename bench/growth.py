"""Measures a store with a long history: opening it, pages of the inbox, holds, and `okayed log --since 1h`.

    python bench/growth.py [--calls N] [--events N] [--store FILE] [--rounds N]

Fills FILE with finished calls, their notices and audit events, and keeps it: the next run with the same numbers uses it
again. Each run measures a copy with OPEN_CALLS open calls. Prints a row for each figure, with its goal, and exits with 1
when a median misses its goal.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from okayed_config import TOKEN, write_config
from past_calls import (
    BUSY,
    HOUR,
    OPEN_CALLS,
    QUIET,
    RARE,
    add_open_calls,
    build_allowed_event,
    build_call,
    fill,
    is_filled,
)
from processes import free_ports, wait_for_listener
from routes import run_server

from approvals.store.sqlite.store import SqliteStore
from gateway.app.config import load_config
from gateway.app.gateway import Gateway, assemble
from gateway.app.serving import serve
from gateway.cli.event_loop import find_fast_loop, run_async

HERE = Path(__file__).resolve()
#: Pages and holds that are measured in a round, and seconds between two holds or two searches.
PAGES_A_ROUND, HOLDS_A_ROUND, PAUSE = 2, 10, 0.01
#: The agent's name for holds of an agent without a past.
NEW = "new"
PAGES = {
    "front page": "/",
    "history: newest": "/history",
    "history: the busy agent": f"/history?agent={BUSY}",
    "history: a quiet agent": f"/history?agent={QUIET[0]}",
    "history: a rare state": f"/history?state={RARE}",
    "history: the busy agent in a rare state": f"/history?agent={BUSY}&state={RARE}",
    "history: an unknown tool": "/history?tool=unknown",
    "history: a text without a hit": "/history?q=nothing",
    "tool with calls": "/tools/bench/create_thing",
    "tool without calls": "/tools/bench/get_thing",
}
#: Searches of the whole history, and the goal for a hold meanwhile. A hold has to wait while the event loop renders a page.
SEARCHES = {"API searches": ("/api/v1/calls?tool=unknown", 2), "history pages": ("/history?q=nothing", None)}


@dataclass(frozen=True)
class Figure:
    """The measurements of one figure, and the goal of their median; None for a figure without a goal."""

    name: str
    took: Sequence[float]
    unit: str
    goal: float | None

    @property
    def missed(self) -> bool:
        return self.goal is not None and statistics.median(self.took) >= self.goal

    def __str__(self) -> str:
        columns = (f"{took:9.2f}" for took in (min(self.took), statistics.median(self.took), max(self.took)))
        goal = "" if self.goal is None else f"< {self.goal:g}"
        return f"{self.name:46} {' '.join(columns)} {self.unit:2} {goal:>6} {'missed' if self.missed else ''}".rstrip()


# Opening


def copy_store(store: Path, folder: Path) -> Path:
    """Copy the filled file to the place where `write_config` expects the store."""
    for suffix in ("", ".lock"):
        shutil.copyfile(f"{store}{suffix}", folder / f"bench.db{suffix}")
    return folder / "bench.db"


def measure_memory() -> float:
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def open_once(path: Path, *, until_killed: bool) -> None:
    """Open the store, print the seconds until its first commit and the memory; then close it, or write and wait."""
    start = time.perf_counter()
    store = await SqliteStore.open(path)
    await store.check()
    print(json.dumps([time.perf_counter() - start, measure_memory()]), flush=True)
    if not until_killed:
        await store.close()
        return
    for _ in range(100):
        await store.append(build_allowed_event(time.time() - 2 * HOUR))
    print("written", flush=True)
    sys.stdin.readline()


def open_in_process(path: Path) -> tuple[float, float]:
    """Open and close the store in a fresh process; returns the seconds and the memory in MB."""
    command = [sys.executable, str(HERE), "--open", str(path)]
    seconds, memory = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return seconds, memory


def kill_while_open(path: Path) -> None:
    """Open the store in another process, write to it, and end that process with SIGKILL."""
    command = [sys.executable, str(HERE), "--open", str(path), "--until-killed"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while process.stdout.readline().strip() != b"written":
            assert process.poll() is None
        process.kill()


def drop_page_cache(path: Path) -> None:
    """Make the next reader of the file read it from the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_openings(
    path: Path, rounds: int, when: str, prepare: Callable[[Path], None] | None = None
) -> Figure:
    """Open the store in fresh processes, each time after *prepare*."""
    took = []
    for _ in range(rounds):
        if prepare is not None:
            prepare(path)
        took.append(open_in_process(path)[0])
    return Figure(f"opening: {when}", took, "s", 1)


# The gateway, in a separate process. Each line that it reads, `AGENT COUNT`, makes it measure that many holds.


async def run_gateway(config: Path) -> None:
    async with assemble(load_config(config, os.environ)) as gateway, serve(gateway) as endpoints:
        await gateway.discovery_done.wait()
        print(json.dumps(endpoints.inbox), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            agent, count = line.split()
            took = [await measure_hold(gateway, agent) for _ in range(int(count))]
            print(json.dumps([took, measure_memory()]), flush=True)


async def measure_hold(gateway: Gateway, agent: str) -> float:
    """Hold a call and return the milliseconds; then cancel the call."""
    await asyncio.sleep(PAUSE)
    number = time.monotonic_ns()
    name = f"{NEW}-{number}" if agent == NEW else agent
    call = build_call(number, gateway.clock(), name)
    start = time.perf_counter()
    await gateway.service.hold(call)
    took = (time.perf_counter() - start) * 1000
    await gateway.service.cancel(call.id, "measured", actor=name)
    return took


class GatewayProcess:
    """The gateway's process, and the address of its inbox."""

    def __init__(self, process: asyncio.subprocess.Process, inbox: str) -> None:
        self._process = process
        self.inbox = inbox
        self.memory = 0.0

    async def hold(self, agent: str, count: int) -> Sequence[float]:
        """Return the milliseconds of each hold."""
        self._process.stdin.write(f"{agent} {count}\n".encode())
        took, self.memory = json.loads(await self._process.stdout.readline())
        return took


@asynccontextmanager
async def start_gateway(config: Path) -> AsyncIterator[GatewayProcess]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, HERE, "--gateway", config,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield GatewayProcess(process, json.loads(await process.stdout.readline()))
    finally:
        process.stdin.close()
        await process.wait()


# Pages, holds and the log


@asynccontextmanager
async def sign_in(inbox: str) -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)
    headers = {"Sec-Fetch-Site": "same-origin", "Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(inbox, cookie_jar=jar, headers=headers) as http:
        async with http.post("/login", data={"token": TOKEN}, allow_redirects=False) as reply:
            assert reply.status == 303, reply.status
        yield http


async def get_page(http: aiohttp.ClientSession, page: str) -> float:
    """Return the milliseconds of one page."""
    start = time.perf_counter()
    async with http.get(page, allow_redirects=False) as reply:
        await reply.read()
        assert reply.status == 200, (page, reply.status)
    return (time.perf_counter() - start) * 1000


async def measure_pages(inbox: str, rounds: int) -> list[Figure]:
    async with sign_in(inbox) as http:
        await get_page(http, "/")  # compiles the templates
        await get_page(http, "/history")
        return [
            Figure(f"page: {name}", [await get_page(http, page) for _ in range(rounds)], "ms", 50)
            for name, page in PAGES.items()
        ]


@asynccontextmanager
async def search_all_the_time(inbox: str, path: str) -> AsyncIterator[None]:
    """Request *path* again and again while the context is open."""

    async def search() -> None:
        while True:
            await get_page(http, path)
            await asyncio.sleep(PAUSE)

    async with sign_in(inbox) as http, asyncio.TaskGroup() as tasks:
        searching = tasks.create_task(search())
        yield
        searching.cancel()


async def measure_holds(
    gateway: GatewayProcess, rounds: int, when: str = "", goal: float | None = 2
) -> list[Figure]:
    return [
        Figure(f"hold: {name}{when}", await gateway.hold(agent, HOLDS_A_ROUND * rounds), "ms", goal)
        for name, agent in (("the busy agent", BUSY), ("a new agent", NEW))
    ]


async def measure_holds_during_searches(gateway: GatewayProcess, rounds: int) -> list[Figure]:
    figures = []
    for name, (path, goal) in SEARCHES.items():
        async with search_all_the_time(gateway.inbox, path):
            figures += await measure_holds(gateway, rounds, f", during {name}", goal)
    return figures


def measure_command(*command: str) -> tuple[float, int]:
    """Return the seconds of an `okayed` command, and the number of lines that it printed."""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-m", "gateway", *command], capture_output=True, check=True)
    return time.perf_counter() - start, len(run.stdout.splitlines())


def measure_log(config: Path, rounds: int) -> list[Figure]:
    runs = [measure_command("log", "--since", "1h", "-c", str(config)) for _ in range(rounds)]
    start = [measure_command("token", "agent", "x")[0] for _ in range(rounds)]
    lines = max(lines for _, lines in runs)
    assert lines >= OPEN_CALLS // 2, lines
    return [
        Figure(f"log --since 1h ({lines} events)", [seconds for seconds, _ in runs], "s", 0.5),
        Figure("okayed token, for comparison", start, "s", None),
    ]


async def measure_gateway(config: Path, rounds: int) -> tuple[list[Figure], float]:
    """Return the figures of a running gateway, and its memory in MB."""
    async with start_gateway(config) as gateway:
        log = await asyncio.to_thread(measure_log, config, rounds)
        pages = await measure_pages(gateway.inbox, PAGES_A_ROUND * rounds)
        holds = await measure_holds(gateway, rounds)
        holds += await measure_holds_during_searches(gateway, rounds)
        return [*pages, *holds, *log], gateway.memory


@contextmanager
def prepare_config(folder: Path) -> Iterator[Path]:
    """Run the server; yields the config of a gateway for it."""
    with run_server() as server:
        asyncio.run(wait_for_listener(server.port))
        ports = free_ports(["agents", "inbox"])
        yield write_config(folder, server=server.port, **ports, limits={"open_per_agent": 10000})


def measure(store: Path, rounds: int) -> Iterator[Figure]:
    """Yield the figures of a copy of a filled store; prints its sizes."""
    with tempfile.TemporaryDirectory(dir=store.parent) as folder, prepare_config(Path(folder)) as config:
        path = copy_store(store, Path(folder))
        yield Figure("opening: the first time, with migrations", [open_in_process(path)[0]], "s", None)
        asyncio.run(add_open_calls(path))
        yield measure_openings(path, rounds, "after a clean stop")
        opened = open_in_process(path)[1]
        figures, memory = asyncio.run(measure_gateway(config, rounds))
        yield from figures
        # Last, because the gateway would check a file that was not closed, and read from an empty page cache.
        yield measure_openings(path, rounds, "after kill -9", kill_while_open)
        yield measure_openings(path, rounds, "after a clean stop, from the disk", drop_page_cache)
        print(
            f"file {path.stat().st_size / 1e6:.0f} MB; memory after opening {opened:.0f} MB, of the gateway {memory:.0f} MB"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=1_000_000, help="at least four for each call")
    parser.add_argument(
        "--store", type=Path, help="the filled file, kept for the next run; default: a temporary file"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each figure")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until-killed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--gateway", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        asyncio.run(open_once(options.open, until_killed=options.until_killed))
    elif options.gateway:
        run_async(run_gateway(options.gateway), find_fast_loop())
    else:
        return compare(options)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Fill the store if necessary, print every figure, and return 1 when a goal was missed."""
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or Path(folder) / "filled.db"
        if not is_filled(store, options.calls, options.events):
            start = time.perf_counter()
            asyncio.run(fill(store, options.calls, options.events))
            print(f"filled in {time.perf_counter() - start:.0f} s")
        print_header(store.stat().st_size, options.calls, options.events)
        missed = 0
        for figure in measure(store, options.rounds):
            print(figure, flush=True)
            missed += figure.missed
    print(describe_load())
    return 1 if missed else 0


def print_header(size: int, calls: int, events: int) -> None:
    print(
        f"{calls} finished calls, {events} events: {size / 1e6:.0f} MB, {size / calls / 1000:.1f} KB a call"
    )
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; {describe_load()}")
    print(f"{'':46} {'fastest':>9} {'median':>9} {'slowest':>9} {'':2} {'goal':>6}")


def describe_load() -> str:
    """Return how many processes want a core: a figure is only as good as the machine is idle."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
