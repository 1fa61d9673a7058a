"""Measures held calls: thousands of them open at one `okayed run`, and the service with its store alone.

    python bench/holds.py [--count N] [--agents N] [--wait SECONDS] [--tree DIR] [--json]

Each held call is an HTTP connection that waits for its answer. The bench holds N calls of about 660 bytes, lets them
wait, approves some of them through the API, and checks the answer on each one's connection. Then it kills the gateway
with SIGKILL, starts it again, and looks for all calls that were not approved. Load and gateway share the cores.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from http_client import Client, Connection, Response, WrongResponse, build_request, connect
from load import Call, build_call
from okayed_config import TOKEN, agent_token, run_okayed, write_config
from processes import ROOT, START, free_ports, raise_file_limit, read_memory, read_processor_seconds
from routes import run_server

SERVICE_BENCH = Path(__file__).with_name("service_holds.py")
#: The bytes of a call's text, and of all its arguments.
TEXT, ARGUMENTS = 620, 660
#: Connections that are opened at once, and approvers that approve at once.
AT_ONCE, APPROVERS = 500, 16
#: Calls that are approved one after the other, and then by several approvers.
SINGLE, TOGETHER = 200, 500
#: Calls on a page of the API.
PAGE = 200
#: Open calls beside which the service alone is measured.
LEVELS = (1_000, 10_000)
#: Seconds until the stream of each waiting client has begun (after 10 s), at most as long as the wait; and for any step.
SETTLE, TIMEOUT = 12.0, 300.0
#: Seconds between two looks at the audit trail.
POLL = 0.05
#: The figures of the gateway: their units and goals.
FIGURES: Mapping[str, tuple[str, str]] = {
    "start, empty store": ("s", ""),
    "memory, idle": ("MB", "<= 45"),
    "holds over HTTP": ("/s", ">= 5000"),
    "processor time of a hold": ("us", "<= 190"),
    "memory of an open call": ("KB", "< 10"),
    "processor time while they wait": ("% of a core", "< 3"),
    "a page of 200 calls over the API": ("ms", ""),
    "approve to answered, p50": ("ms", ""),
    "approve to answered, p99": ("ms", "< 10"),
    "approvals": ("/s", ""),
    "start after kill -9": ("s", ""),
}
#: The same for the service alone, beside a number of open calls.
SERVICE = "holds, service and store, {} open"
SERVICE_GOAL = ("/s", ">= 10000")


class Agent(Connection):
    """An agent's connection with one held call."""

    def __init__(self, call: Call, answered: "asyncio.Queue[Agent]") -> None:
        super().__init__()
        self.call, self._answered = call, answered
        self.response: Response | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.send(self.call.request)

    def response_received(self, response: Response) -> None:
        self.response, self.answered_at = response, time.perf_counter()
        self._answered.put_nowait(self)


class Agents:
    """All agents' connections."""

    def __init__(self, count: int, tokens: Sequence[str]) -> None:
        self._calls = [
            build_call("/mcp/bench", "create_thing", number, f"call {number} {'x' * TEXT}", token=tokens[number % len(tokens)])
            for number in range(1, count + 1)
        ]  # fmt: skip
        self._answered: asyncio.Queue[Agent] = asyncio.Queue()
        self._connections: list[Agent] = []

    async def send(self, port: int) -> None:
        """Open the connections and send all calls."""
        loop = asyncio.get_running_loop()
        for first in range(0, len(self._calls), AT_ONCE):
            made = (
                loop.create_connection(lambda call=call: Agent(call, self._answered), "127.0.0.1", port)
                for call in self._calls[first : first + AT_ONCE]
            )
            self._connections += [agent for _, agent in await asyncio.gather(*made)]

    def check_waiting(self) -> None:
        """Raise `WrongResponse` if a call was answered."""
        if not self._answered.empty():
            agent = self._answered.get_nowait()
            raise WrongResponse(f"call {agent.call.id} was not held: {agent.response}")

    async def next_answered(self) -> Agent:
        """Return the next agent with an answer, which must be right."""
        async with asyncio.timeout(TIMEOUT):
            agent = await self._answered.get()
        agent.call.check(agent.response)
        return agent

    def close(self) -> None:
        for agent in self._connections:
            agent.close()


class Inbox:
    """The API of the inbox, over one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, path: str) -> dict:
        return self._read(
            await self._client.ask(build_request("GET", f"/api/v1{path}", f"Authorization: Bearer {TOKEN}"))
        )

    async def approve(self, call: str, digest: str) -> None:
        body = json.dumps({"digest": digest}).encode()
        request = build_request(
            "POST", f"/api/v1/calls/{call}/approve", f"Authorization: Bearer {TOKEN}", body=body
        )
        self._read(await self._client.ask(request))

    def _read(self, response: Response) -> dict:
        if response.status != 200:
            raise WrongResponse(f"the API: HTTP {response.status} {response.body[:300]!r}")
        return json.loads(response.body)

    async def count_events(self) -> int:
        """Return the number of the last audit event."""
        page = await self.get("/audit?after=0&limit=1000")
        return page["events"][-1]["seq"] if page["events"] else 0

    async def has_event(self, number: int) -> bool:
        """Whether the audit trail has an event with this number. A read sees only what was committed."""
        return bool((await self.get(f"/audit?after={number - 1}&limit=1"))["events"])

    async def list_pending(self) -> Mapping[str, str]:
        """Return the ids of all pending calls, newest first, with their digests."""
        pending: dict[str, str] = {}
        before = ""
        while before is not None:
            page = await self.get(
                f"/calls?state=pending&limit={PAGE}" + (f"&before={before}" if before else "")
            )
            pending |= {call["id"]: call["digest"] for call in page["calls"]}
            before = page["next"]
        return pending


@asynccontextmanager
async def open_inbox(port: int) -> AsyncIterator[Inbox]:
    client = await connect(port)
    try:
        yield Inbox(client)
    finally:
        client.close()


async def wait_until_ready(port: int) -> None:
    async with asyncio.timeout(START):
        while True:
            try:
                client = await connect(port)
                ready = await client.ask(build_request("GET", "/readyz"))
                client.close()
                if ready.status == 200:
                    return
            except (OSError, WrongResponse):
                pass
            await asyncio.sleep(0.002)


async def hold_all(agents: Agents, ports: Mapping[str, int], count: int) -> float:
    """Hold all calls; return the seconds until every one is durable: each has one audit event, in the same commit."""
    async with open_inbox(ports["inbox"]) as inbox, asyncio.timeout(TIMEOUT):
        before, start = await inbox.count_events(), time.perf_counter()
        await agents.send(ports["agents"])
        while not await inbox.has_event(before + count):
            agents.check_waiting()
            await asyncio.sleep(POLL)
        return time.perf_counter() - start


async def approve_one_by_one(agents: Agents, inbox: Inbox, calls: Sequence[tuple[str, str]]) -> list[float]:
    """Approve calls in turn; return the milliseconds from each approval to its answer, in ascending order."""
    took = []
    for call in calls:
        start = time.perf_counter()
        approval = asyncio.ensure_future(inbox.approve(*call))
        took.append(((await agents.next_answered()).answered_at - start) * 1000)
        await approval
    return sorted(took)


async def approve_together(agents: Agents, port: int, calls: Sequence[tuple[str, str]]) -> float:
    """Approve calls over several connections; return the answered calls per second."""
    left: Iterator[tuple[str, str]] = iter(calls)

    async def approve() -> None:
        async with open_inbox(port) as inbox:
            for call in left:
                await inbox.approve(*call)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(APPROVERS):
            tasks.create_task(approve())
        for _ in calls:
            await agents.next_answered()
    return len(calls) / (time.perf_counter() - start)


async def measure_waiting(pid: int, seconds: float) -> float:
    """Return the share of a core, in percent, that the gateway uses while the calls wait."""
    before = read_processor_seconds(pid)
    await asyncio.sleep(seconds)
    return (read_processor_seconds(pid) - before) / seconds * 100


async def measure_open_calls(
    agents: Agents, ports: Mapping[str, int], pid: int, count: int, wait: float
) -> tuple[dict[str, float], set[str]]:
    """Hold the calls and approve some; return the figures, and the ids of the calls that are still pending."""
    memory, spent = read_memory(pid), read_processor_seconds(pid)
    figures = {"memory, idle": memory / 1000, "holds over HTTP": count / await hold_all(agents, ports, count)}
    figures["processor time of a hold"] = (read_processor_seconds(pid) - spent) / count * 1e6
    await asyncio.sleep(min(SETTLE, wait))
    figures["processor time while they wait"] = await measure_waiting(pid, wait)
    figures["memory of an open call"] = (read_memory(pid) - memory) / count
    async with open_inbox(ports["inbox"]) as inbox:
        start = time.perf_counter()
        pending = list((await inbox.list_pending()).items())
        figures["a page of 200 calls over the API"] = (time.perf_counter() - start) * 1000 / -(-count // PAGE)
        assert len(pending) == count, f"{len(pending)} of {count} calls are pending"
        single, together = min(SINGLE, count // 4), min(TOGETHER, count // 4)
        took = await approve_one_by_one(agents, inbox, pending[:single])
    figures["approve to answered, p50"] = took[single // 2]
    figures["approve to answered, p99"] = took[single * 99 // 100]
    approved = single + together
    figures["approvals"] = await approve_together(agents, ports["inbox"], pending[single:approved])
    return figures, {call for call, _ in pending[approved:]}


async def measure_gateway(count: int, agents: int, wait: float, tree: Path) -> dict[str, float]:
    """Measure one gateway before and after SIGKILL."""
    ports = free_ports(["agents", "inbox"])
    tokens = [agent_token(one) for one in range(agents)]
    with tempfile.TemporaryDirectory() as folder, run_server() as server:
        config = write_config(
            Path(folder), server=server.port, count=agents, **ports, policy={"default": "require_approval"},
            approvals={"expire_after": "2h", "hold_for": "1h"},
            limits={"open": 2 * count, "open_per_agent": count, "bytes": "1GB", "bytes_per_agent": "1GB"},
        )  # fmt: skip
        start = time.perf_counter()
        with run_okayed(config, tree) as process:
            await wait_until_ready(ports["agents"])
            started = time.perf_counter() - start
            clients = Agents(count, tokens)
            try:
                figures, pending = await measure_open_calls(clients, ports, process.pid, count, wait)
            finally:
                clients.close()
            process.send_signal(signal.SIGKILL)
            process.wait()
        start = time.perf_counter()
        with run_okayed(config, tree):
            await wait_until_ready(ports["agents"])
            figures |= {"start, empty store": started, "start after kill -9": time.perf_counter() - start}
            async with open_inbox(ports["inbox"]) as inbox:
                found = set(await inbox.list_pending())
            assert found == pending, (
                f"{len(found & pending)} of {len(pending)} calls are pending after kill -9"
            )
    return figures


def measure_service(levels: Sequence[int], tree: Path) -> Mapping[str, float]:
    """Return the holds per second of the service alone, measured in its own process."""
    command = [sys.executable, str(SERVICE_BENCH), *map(str, levels)]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return {SERVICE.format(level): rate for level, rate in json.loads(run.stdout).items()}


def print_table(count: int, found: Mapping[str, float]) -> None:
    print(f"| {count} calls open | measured | | goal |\n| --- | --- | --- | --- |")
    for name, value in found.items():
        unit, goal = FIGURES.get(name, SERVICE_GOAL)
        print(f"| {name} | {value:.{0 if value >= 100 else 2}f} | {unit} | {goal} |")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="calls held open")
    parser.add_argument("--agents", type=int, default=120)
    parser.add_argument("--wait", type=float, default=20.0, help="seconds for which the calls wait")
    parser.add_argument(
        "--levels", type=int, nargs="+", default=LEVELS, help="open calls beside the service's holds"
    )
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout whose gateway is measured")
    parser.add_argument("--json", action="store_true", help="print one line of JSON as well")
    options = parser.parse_args()
    files = raise_file_limit(options.count + 1000)
    if files < options.count + 1000:
        options.count = files - 1000
        print(f"only {files} files may be open, so {options.count} calls are held (ulimit -Hn)")
    found = uvloop.run(measure_gateway(options.count, options.agents, options.wait, options.tree))
    found = {name: found[name] for name in FIGURES} | measure_service(options.levels, options.tree)
    print_table(options.count, found)
    if options.json:
        print(
            json.dumps({"count": options.count, **{name: round(value, 3) for name, value in found.items()}})
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
