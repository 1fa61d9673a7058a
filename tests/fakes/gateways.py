"""A gateway on a free port in front of a recording server, with a clock that tests move."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from textwrap import indent
from typing import Any

import aiohttp

from approvals.client_address import TrustedProxies
from approvals.model import Decision, HeldCall
from gateway.app.config import parse_config
from gateway.app.gateway import Gateway, assemble
from gateway.app.signals import follow_signals
from gateway.config.options import Config
from gateway.fronts.agents_listener import open_agents_listener
from gateway.fronts.connection_limits import Connections
from gateway.fronts.endpoint import Endpoint, ListenerPolicy
from gateway.upstreams.http1.pool import ConnectionPool
from hang import HANG
from recording_server import RecordingServer

POLICY = """\
default: require_approval
matrix: [{category: [Read], action: allow}]
tools:
  delete_note: {action: deny, reason: notes are kept}
"""


class Clock:
    """A clock in epoch seconds that the test sets: the true time, and the machine's clock, which may be wrong."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        #: Seconds that the machine's clock is ahead.
        self.ahead = 0.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.ahead

    def monotonic(self) -> float:
        """Return seconds since boot, so that tests notice if the two clocks are confused."""
        return self.now - 1_799_990_000.0


MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
TASKS = {"extensions": {"io.modelcontextprotocol/tasks": {}}}


@dataclass
class Answer:
    """One complete answer of the gateway."""

    status: int
    media_type: str
    body: bytes

    @property
    def frames(self) -> list[dict]:
        """The frames of the answer; the response is the last."""
        if self.media_type == "application/json":
            return [json.loads(self.body)]
        return [
            json.loads(line[5:])
            for line in self.body.splitlines()
            if line.startswith(b"data:") and line[5:].strip()
        ]

    @property
    def result(self) -> dict:
        return self.frames[-1]["result"]

    @property
    def error(self) -> dict:
        return self.frames[-1]["error"]


@dataclass
class RunningGateway:
    """A running gateway, its server, and a client."""

    gateway: Gateway
    recorder: RecordingServer
    url: str
    http: aiohttp.ClientSession
    #: The connections of an upstream that is this gateway.
    pool: ConnectionPool
    clock: Clock

    async def post(self, body: Any, headers: dict | None = None) -> aiohttp.ClientResponse:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **(headers or {}),
        }
        return await self.http.post(self.url, data=data, headers=given)

    async def call(
        self, tool: str, arguments: dict | None = None, *, id: Any = 1, headers: dict | None = None
    ) -> dict:
        """Call a tool and return the frame that answers."""
        async with await self.post(call(tool, arguments, id=id), headers) as answer:
            return last_frame(await answer.read())

    async def ask(
        self,
        method: str,
        params: dict,
        *,
        id: Any = 1,
        declares: dict | None = None,
        headers: dict | None = None,
    ) -> Answer:
        """Send a request of the revision of 2026-07-28 and read the whole answer."""
        meta = {
            **META,
            "io.modelcontextprotocol/clientCapabilities": declares or {},
            **params.get("_meta", {}),
        }
        named = params.get("name") or params.get("taskId")
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, **(headers or {})} | (
            {"Mcp-Name": named} if isinstance(named, str) else {}
        )
        body = {"jsonrpc": "2.0", "id": id, "method": method, "params": {**params, "_meta": meta}}
        async with await self.post(body, headers) as answer:
            return Answer(answer.status, answer.content_type, await answer.read())

    async def held(self, count: int = 1) -> list[HeldCall]:
        """Wait until this many calls are pending and return them, oldest first."""
        async with asyncio.timeout(HANG):
            while len(found := (await self.gateway.store.select(["pending"])).items) < count:
                await asyncio.sleep(0)
            return list(reversed(found))

    async def pass_time(self, seconds: float) -> None:
        """Move the clock forward once a client waits for a call."""
        listening = self.gateway.service.wakeups.listening
        async with asyncio.timeout(HANG):
            while not listening:
                await asyncio.sleep(0)
        self.clock.now += seconds
        for call_id in list(listening):
            self.gateway.service.wakeups.wake(call_id)

    async def review(
        self, held: HeldCall, answer: Decision = Decision.APPROVE, reason: str = "", who: str = "alice"
    ) -> HeldCall:
        approver = self.gateway.service.directory.by_name(who)
        return await self.gateway.service.review(
            held.id, approver, answer, via="cli", reason=reason, digest=held.digest
        )

    def ran(self) -> list[dict]:
        """Return the params of every tools/call that reached the server."""
        return [one.frame["params"] for one in self.recorder.calls]

    async def kinds(self) -> list[str]:
        return [event.kind for event in await self.gateway.store.events()]


def call(tool: str, arguments: dict | None = None, *, id: Any = 1, **params: Any) -> dict:
    return {
        "jsonrpc": "2.0",
        "id": id,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments or {}, **params},
    }


def last_frame(body: bytes) -> dict:
    """Return the last frame of an answer, which is JSON or a stream."""
    lines = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
    return json.loads(lines[-1] if lines else body)


def text(frame: dict) -> str:
    return frame["result"]["content"][0]["text"]


@asynccontextmanager
async def running(
    policy: str = POLICY,
    more: str = "",
    recorder: RecordingServer | None = None,
    server_options: str = "",
    environ: dict | None = None,
    second_server: str = "",
    store: str = "memory:",
):
    """Run a gateway with this policy, in front of *recorder* or the server in the options."""
    async with AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(recorder or RecordingServer())
        options = server_options or f"url: '{recorder.url}'"
        servers = f"notes: {{{options}}}{f', {second_server}: {{{options}}}' if second_server else ''}"
        config = build_config(servers, policy, f"store: '{store}'\n{more}", environ)
        yield await stack.enter_async_context(serving(config, recorder, Clock()))


def build_config(servers: str, policy: str = POLICY, more: str = "", environ: dict | None = None) -> Config:
    return parse_config(
        f"servers: {{{servers}}}\napprovers: [{{name: alice}}, {{name: bob}}]\n"
        f"{more}\npolicy:\n{indent(policy, '  ')}", environ or {}, str,
    )  # fmt: skip


@asynccontextmanager
async def serving(config: Config, recorder: RecordingServer, clock: Clock, **options: Any):
    """Serve the agents of *config*; *options* are those of `assemble`."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(assemble(config, clock.wall, clock.monotonic, **options))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        follow = tasks.create_task(follow_signals(gateway))
        stack.callback(follow.cancel)
        listener_policy = ListenerPolicy(
            agents=lambda: gateway.agents,
            ready=gateway.readiness_problem,
            clock=gateway.clock,
            proxies=TrustedProxies.parse(config.trusted_proxies),
        )
        endpoint = Endpoint(gateway.proxy, listener_policy)
        at = await stack.enter_async_context(
            open_agents_listener(endpoint, "127.0.0.1:0", Connections("agents", 1000))
        )
        http = await stack.enter_async_context(aiohttp.ClientSession())
        pool = await stack.enter_async_context(ConnectionPool())
        yield RunningGateway(gateway, recorder, f"http://{at}/mcp/notes", http, pool, clock)
