"""Simulated clients with the measured limits of real ones, and a gateway for them in simulated time."""

import asyncio
import itertools
import json
from dataclasses import dataclass, field

from approvals.identity import Directory
from approvals.model import Approver, CallId, Decision
from approvals.service import ApprovalService
from approvals.store.memory.store import MemoryStore
from front_entry import serve
from gateway.app.config import parse_config
from gateway.auth.agents import LOCAL
from gateway.call.exchange_limits import ExchangeShares
from gateway.call.hold_settings import HoldSettings, TaskOffer
from gateway.call.limiter import WindowLimiter
from gateway.call.metrics import Metrics
from gateway.call.request import Exchange, RequestHead
from gateway.call.settings import ProxySettings
from gateway.hold.request_state import StateSealer
from gateway.hold.running import Forwarder
from gateway.policy.compiling import compile_policy
from gateway.policy.limits import Windows
from gateway.proxy import Proxy
from gateway.tools.catalogue import Catalogue
from gateway.tools.pins import Pins
from gateway.upstreams.reply import Reply, frame_reply, read_body
from gateway.wire import protocol
from replacing import replace

SECOND, MINUTE, HOUR = 1.0, 60.0, 3600.0
CONFIG = """
servers: {notes: {url: "http://127.0.0.1:1/"}}
approvers: [{name: alice}]
approvals: {expire_after: 30h, approved_for: 10m}
policy: {default: require_approval}
"""
TOOL = {"name": "create_note", "inputSchema": {"type": "object"}}
CALL = {"name": "create_note", "arguments": {"a": 1}}
DONE = "the note is made"
MODERN, OLD = "2026-07-28", "2025-11-25"


class Server:
    """An MCP server that counts its runs."""

    def __init__(self):
        self.runs = 0

    def line(self) -> None:
        """Return None: the fake answers `send` only."""

    def knows(self, _headers):
        return None  # unknown, so the server is asked

    async def send(self, verb, body, headers):
        frame = json.loads(body) if body else {}
        match frame.get("method"):
            case "tools/call":
                self.runs += 1
                return self._answer(
                    frame, {"resultType": "complete", "content": [{"type": "text", "text": DONE}]}
                )
            case "tools/list":
                return self._answer(frame, {"tools": [TOOL]})
            case "server/discover":
                return self._answer(frame, {"capabilities": {}})
            case "ping":
                return self._answer(frame, {})
            case "initialize":
                opened = {
                    "protocolVersion": OLD,
                    "capabilities": {},
                    "serverInfo": {"name": "s", "version": "1"},
                }
                return frame_reply(self._frame(frame, opened), headers={"Mcp-Session-Id": "s1"})
        return Reply(status=202)

    def _answer(self, frame, result):
        return frame_reply(self._frame(frame, result))

    @staticmethod
    def _frame(frame, result):
        return json.dumps({"jsonrpc": "2.0", "id": frame["id"], "result": result}).encode()

    async def close(self):
        pass


class SimulatedGateway:
    """A gateway in front of that server, on the loop's clock."""

    def __init__(self):
        self.server = Server()
        clock = asyncio.get_running_loop().time
        config = parse_config(CONFIG, {}, str)
        self.store = MemoryStore()
        self.service = ApprovalService(self.store, Directory([Approver(name="alice")]), clock=clock)
        catalogue = Catalogue(clock, Pins(self.store, ()), lambda *_: None)
        catalogue.configure({"notes": self.server}, {"notes": {}})
        sealer, numbers = StateSealer([b"k" * 32]), itertools.count()
        self.proxy = Proxy(
            settings=ProxySettings(
                policy=compile_policy(config),
                upstreams={"notes": self.server},
                identities={"notes": "the server"},
                addresses={"notes": "https://notes.example.com"},
                holds=HoldSettings(clients={}, tasks=TaskOffer.ALL),
                shares=ExchangeShares(),
                may_use=lambda *_: True,
            ),
            service=self.service, state=self.store, catalogue=catalogue, limiter=WindowLimiter(self.store, Windows()), forwarder=Forwarder(self.service, catalogue.mark_stale),
            metrics=Metrics(), new_id=lambda: CallId(f"hold_{next(numbers):026}"), sealer=lambda: sealer,
        )  # fmt: skip

    async def send(self, frame, headers=None, verb="POST"):
        given = {"accept": "application/json, text/event-stream", **(headers or {})}
        body = b"" if frame is None else json.dumps(frame).encode()
        incoming = Exchange(
            agent=LOCAL, server="notes", verb=verb, body=body, head=RequestHead(tuple(given.items()))
        )
        return await serve(self.proxy, incoming)

    async def decide(self, after):
        """Approve the held call after *after* seconds."""
        await asyncio.sleep(after)
        [held] = (await self.store.select(["pending"])).items
        alice = self.service.directory.by_name("alice")
        await self.service.review(held.id, alice, Decision.APPROVE, via="cli", digest=held.digest)

    async def run(self):
        while True:
            await self.service.sweep()
            self.proxy.tasks.attend_all(await self.store.open_tasks())
            await asyncio.sleep(30)


class ClientTimeout(Exception):
    """The client's own timeout ended a request."""


@dataclass
class SimulatedClient:
    """A client with its measured timeouts and the capabilities that it declares."""

    gateway: SimulatedGateway
    name: str = "someone"
    revision: str = OLD
    #: Timeouts of a request in seconds: in total, and without receiving a byte.
    limit: float = 60.0
    silence: float = 300.0
    progress: bool = False
    declares: dict = field(default_factory=dict)
    accept: str = "application/json, text/event-stream"
    #: The calls that the model made, the rounds within them, and the requests that timed out.
    attempts: int = 0
    rounds: int = 0
    timeouts: int = 0

    def headers(self, method, named):
        if self.revision == MODERN:
            return {
                "mcp-protocol-version": MODERN,
                "mcp-method": method,
                "mcp-name": named,
                "accept": self.accept,
            }
        return {"mcp-protocol-version": self.revision, "mcp-session-id": "s1", "accept": self.accept}

    async def open(self):
        if self.revision != MODERN:
            info = {"name": self.name, "version": "1"}
            params = {"protocolVersion": self.revision, "capabilities": {}, "clientInfo": info}
            opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
            await read_body(await self.gateway.send(opening))

    async def request(self, method, params, verb="POST", **more):
        """Send one request and return the answer's frame; raises `ClientTimeout`."""
        meta = {"progressToken": 1} if self.progress else {}
        if self.revision == MODERN:
            meta |= {
                protocol.META_VERSION: MODERN,
                protocol.META_CAPABILITIES: self.declares,
                protocol.META_CLIENT: {"name": self.name, "version": "1"},
            }
        params = {**params, **({"_meta": meta} if meta else {})}
        frame = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params} if verb == "POST" else None
        named = params.get("name") or params.get("taskId")
        try:
            async with asyncio.timeout(self.limit):
                async with asyncio.timeout(self.silence):
                    reply = await self.gateway.send(frame, {**self.headers(method, named), **more}, verb)
                return await self.read(reply)
        except TimeoutError:
            self.timeouts += 1
            raise ClientTimeout from None

    async def read(self, reply):
        body = reply.body or b""
        try:
            while True:
                try:
                    async with asyncio.timeout(self.silence):
                        body += await anext(reply.chunks)
                except StopAsyncIteration:
                    break
        finally:
            await reply.chunks.aclose()
        await reply.delivered()
        if not reply.streams:
            return json.loads(body)
        data = [line[5:] for line in body.splitlines() if line.startswith(b"data:") and line[5:].strip()]
        return json.loads(data[-1])

    async def call_tool(self):
        """Call the tool; answer up to ten input_required rounds, like an SDK."""
        state = {}
        for rounds in range(11):
            assert rounds < 10, "the SDK gives up after ten rounds"
            result = (await self.request("tools/call", {**CALL, **state}))["result"]
            if result.get("resultType") != "input_required":
                return result
            self.rounds += 1
            state = {"requestState": result["requestState"]}
        raise AssertionError

    async def call_until_done(self):
        """Call the tool until there is an answer, like a model."""
        await self.open()
        while True:
            self.attempts += 1
            try:
                result = await self.call_tool()
            except ClientTimeout:
                await asyncio.sleep(1)
                continue
            said = result["content"][0]["text"]
            if not said.startswith("WAITING"):
                return said
            await asyncio.sleep(result["_meta"]["okayed/approval"]["retryAfterMs"] / 1000)


@dataclass
class UncancellingClient(SimulatedClient):
    """A client that sends no cancellation on a timeout: the request stays open, and its answer is lost."""

    left: list = field(default_factory=list)

    async def request(self, method, params, verb="POST", **more):
        patient = replace(self, limit=1e9)
        asked = asyncio.ensure_future(SimulatedClient.request(patient, method, params, verb, **more))
        self.left.append(asked)
        await asyncio.wait([asked], timeout=self.limit)
        if not asked.done():
            self.timeouts += 1
            raise ClientTimeout
        return asked.result()


class PollingClient(SimulatedClient):
    """A client that gets a task and polls it."""

    async def call_tool(self):
        task = (await self.request("tools/call", CALL))["result"]
        while task["status"] == "working":
            await asyncio.sleep(task["pollIntervalMs"] / 1000)
            task = (await self.request("tasks/get", {"taskId": task["taskId"]}))["result"]
        return task["result"]


class BlockingClient(SimulatedClient):
    """A client of 2025-11-25 that requests a task, and repeats tasks/result after each timeout."""

    async def call_tool(self):
        task = (await self.request("tools/call", {**CALL, "task": {}}))["result"]["task"]
        while True:
            try:
                return (await self.request("tasks/result", {"taskId": task["taskId"]}))["result"]
            except ClientTimeout:
                continue


class ReconnectingClient(SimulatedClient):
    """A client whose connection breaks every ten minutes, and that resumes the stream."""

    async def request(self, method, params, verb="POST", **more):
        reply = await self.gateway.send(
            {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, self.headers(method, None)
        )
        while True:
            seen = reply.body or b""
            try:
                async with asyncio.timeout(600):
                    async for chunk in reply.chunks:
                        seen += chunk
            except TimeoutError:
                pass
            await reply.chunks.aclose()
            if not reply.streams:
                return json.loads(seen)
            if b'"result"' in seen:
                return json.loads(seen.splitlines()[-2].removeprefix(b"data: "))
            event = seen.split(b"\n")[0].removeprefix(b"id: ").decode()
            await asyncio.sleep(5)
            reply = await self.gateway.send(
                None, {**self.headers(method, None), "last-event-id": event}, "GET"
            )


TASKS = {"extensions": {protocol.TASKS: {}}}
#: Name, client class and its traits, and how it waits when a person takes 5 s, 5 min, 5 h or 25 h: "1" is one answered
#: call, "rounds" are repeated by the SDK, "again" is repeated by the model.
CLIENTS = {
    "TypeScript SDK 1.x": (SimulatedClient, {"limit": 60.0}, "1 again again again"),
    "TypeScript SDK 2.x": (SimulatedClient, {"limit": 60.0, "revision": MODERN}, "1 rounds again again"),
    "Python SDK, handshake": (SimulatedClient, {"name": "mcp", "limit": 1e9}, "1 1 again again"),
    "Python SDK, 2026-07-28": (SimulatedClient, {"name": "mcp", "limit": 1e9, "revision": MODERN}, "1 1 rounds rounds"),
    "Claude Code": (SimulatedClient, {"name": "claude-code", "limit": 1e5, "progress": True}, "1 1 1 again"),
    "VS Code": (SimulatedClient, {"name": "Visual Studio Code", "limit": 1e9, "progress": True}, "1 1 1 again"),
    "VS Code, with tasks": (BlockingClient, {"name": "Visual Studio Code", "limit": 1e9}, "1 1 1 1"),
    "Cursor": (SimulatedClient, {"name": "cursor-vscode", "limit": 300.0}, "1 again again again"),
    "Codex": (SimulatedClient, {"name": "codex-mcp-client", "limit": 300.0}, "1 again again again"),
    "Claude Desktop": (SimulatedClient, {"name": "claude-ai", "limit": 60.0}, "1 again again again"),
    "a client with tasks (2026-07-28)": (PollingClient, {"revision": MODERN, "declares": TASKS}, "1 1 1 1"),
    "a client of JSON only": (SimulatedClient, {"accept": "application/json"}, "1 again again again"),
    "a client with a timer of 20 s": (SimulatedClient, {"limit": 20.0}, "1 again again again"),
    "OpenAI Agents, 5 s": (UncancellingClient, {"name": "mcp", "limit": 4.9}, "again again again again"),
    "a connection that is cut every 10 min": (ReconnectingClient, {"name": "claude-code"}, "1 1 1 1"),
}  # fmt: skip
TIMES = {"5 s": 5 * SECOND, "5 min": 5 * MINUTE, "5 h": 5 * HOUR, "25 h": 25 * HOUR}
