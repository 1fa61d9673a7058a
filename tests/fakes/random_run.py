"""Agents, approvers and a server around one or more gateways, driven at random over HTTP; their logs are checked later.

An agent repeats its call until it has the final answer. An approver approves each call once: a second held call with
the same marker is a repeat whose answer was lost, and would run twice.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

import aiohttp
import msgspec
from aiohttp import web

from approvals.model import Decision
from gateways import META, MODERN
from gateways import Answer as HttpAnswer
from history import Answer, marker
from process import token
from recording_server import RecordingServer, error, result
from run_log import RunLog

#: The first words in an answer's text decide what it says.
TEXTS = {
    "Denied by policy": Answer.NOT_RUN,
    "Denied by ": Answer.DENIED,
    "WAITING:": Answer.WAITING,
    "RUNNING:": Answer.WAITING,
    "NOT EXECUTED": Answer.NOT_RUN,
    "It MAY have run": Answer.IN_DOUBT,
    "A person looked into it": Answer.RESOLVED,
}
FINAL = {Answer.RESULT, Answer.DENIED, Answer.NOT_RUN, Answer.RESOLVED}
FREE = "get_note"
#: The second needs two approvals.
TOOLS = ("create_note", "delete_note", "create_note", FREE)
POLICY = (
    "{default: require_approval, matrix: [{category: [Read], action: allow}], "
    "tools: {delete_note: {action: require_approval, approvals: 2}}}"
)
#: Seconds between two looks of an agent or approver, and the longest work of the server.
LOOK, WORK = 0.02, 0.05


class _Params(msgspec.Struct):
    arguments: msgspec.Raw


class _Frame(msgspec.Struct):
    params: _Params


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The addresses of one gateway: its agents' listener with the server, and its inbox."""

    agents: str
    inbox: str


@dataclass
class RandomRun:
    """The people and programs of a run. `stopping` ends it: agents then make no new calls."""

    log: RunLog
    chance: Random
    endpoints: list[Endpoint] = field(default_factory=list)
    stopping: bool = False
    #: Whether the server sometimes reports an error, or breaks the connection.
    trouble: bool = True
    #: Set while a gateway listens.
    up: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0
    agents: int = 0
    _approved: dict[str, str] = field(default_factory=dict)

    def recorder(self) -> RecordingServer:
        """Return the server of the run."""
        return RecordingServer(on_call=self._receive)

    async def play(self, http: aiohttp.ClientSession, agents: int, approvers: Sequence[str]) -> None:
        """Let agents and approvers work until the run stops and the agents have their answers."""
        self.agents = agents
        async with asyncio.TaskGroup() as tasks:
            for _ in range(agents):
                tasks.create_task(self._work(http))
            for who in approvers:
                tasks.create_task(self._approve(http, who))

    def likely(self, percent: int) -> bool:
        return self.chance.randrange(100) < percent

    # Agents.

    async def _work(self, http: aiohttp.ClientSession) -> None:
        while not self.stopping:
            self.calls += 1
            tool = self.chance.choice(TOOLS)
            # White space that only the exact bytes have.
            arguments = b'{"marker":  "marker-%d" , "n": 1.0}' % self.calls
            # Sometimes two requests for one call are open at the same time.
            twice = (self._repeat_until_answered(http, tool, arguments) for _ in range(1 + self.likely(30)))
            await asyncio.gather(*twice)
        self.agents -= 1

    async def _repeat_until_answered(self, http: aiohttp.ClientSession, tool: str, arguments: bytes) -> None:
        answer, state = await self.ask(http, tool, arguments)
        while answer not in FINAL:
            await asyncio.sleep(LOOK)
            await self.up.wait()
            patience = LOOK if self.likely(10) else None  # or the agent hangs up
            answer, state = await self.ask(http, tool, arguments, state, patience=patience)

    async def ask(
        self, http: aiohttp.ClientSession, tool: str, arguments: bytes, state: str = "",
        *, at: Endpoint | None = None, patience: float | None = None,
    ) -> tuple[Answer, str]:  # fmt: skip
        """Make a call at a gateway (None: any); return its answer, and the request state for the next round."""
        endpoint, sent = at or self.chance.choice(self.endpoints), self.log.next_place()
        answer, found = Answer.LOST, {}
        try:
            async with asyncio.timeout(patience):
                reply = await _post(http, endpoint.agents, tool, arguments, state)
            found = reply.frames[-1].get("result") or _as_result(reply.error)
            answer = _classify(found)
        except (aiohttp.ClientError, TimeoutError, IndexError):
            pass
        about = found.get("_meta", {}).get("okayed/approval", {})
        self.log.add_request(
            "local", "notes", tool, arguments, sent=sent, answer=answer, text=_text(found),
            call=about.get("id", ""), expires_at=_deadline(about),
        )  # fmt: skip
        return answer, found.get("requestState", "")

    # The server.

    async def _receive(self, request: web.Request, frame: dict) -> web.StreamResponse:
        """Log a call, work on it, and answer; sometimes break the connection instead."""
        arguments = bytes(msgspec.json.decode(await request.read(), type=_Frame).params.arguments)
        cut = self.trouble and self.likely(5)
        await self.log.add_received("notes", frame["params"]["name"], arguments, cut=cut)
        await asyncio.sleep(self.chance.random() * WORK)
        if cut and request.transport is not None:
            request.transport.abort()
        text = f"ran {marker(arguments)}"
        if self.trouble and self.likely(10):
            return error(frame, -32000, text)
        return result(frame, {"resultType": "complete", "content": [{"type": "text", "text": text}]})

    # Approvers.

    async def _approve(self, http: aiohttp.ClientSession, who: str) -> None:
        while self.agents:
            try:
                for call in await self.list_calls(http, who, "pending"):
                    if self.likely(15):
                        await self._decide(http, who, call)
                for call in await self.list_calls(http, who, "in_doubt"):
                    if self.likely(20):
                        await self._act(http, who, call, "resolve", self.chance.choice(self.endpoints))
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(LOOK)  # no other event to wait for: another process works

    async def list_calls(
        self, http: aiohttp.ClientSession, who: str, state: str, *, at: Endpoint | None = None
    ) -> Sequence[dict]:
        """Return the calls in a state, as the inbox of a gateway (None: any) lists them."""
        inbox = (at or self.chance.choice(self.endpoints)).inbox
        async with http.get(f"{inbox}/api/v1/calls", params={"state": state}, headers=_login(who)) as answer:
            return (await answer.json())["calls"]

    async def _decide(self, http: aiohttp.ClientSession, who: str, call: dict) -> None:
        first = self._approved.setdefault(json.loads(call["arguments_text"])["marker"], call["id"])
        decision = Decision.DENY if first != call["id"] or self.likely(10) else Decision.APPROVE
        for _ in range(self.chance.choice((1, 1, 2))):
            await self.review(http, who, call, decision)

    async def review(
        self, http: aiohttp.ClientSession, who: str, call: dict, decision: Decision, *, at: Endpoint | None = None,
    ) -> None:  # fmt: skip
        """Answer a call in the inbox of a gateway (None: any)."""
        acknowledged = False
        try:
            acknowledged = await self._act(
                http, who, call, decision, at or self.chance.choice(self.endpoints)
            )
        finally:
            await self.log.add_review(call["id"], who, decision, acknowledged=acknowledged)

    async def _act(self, http: aiohttp.ClientSession, who: str, call: dict, verb: str, at: Endpoint) -> bool:
        """Return whether the gateway acknowledged an action."""
        body = {"reason": "I looked"} | ({"digest": call["digest"]} if verb != "resolve" else {})
        url = f"{at.inbox}/api/v1/calls/{call['id']}/{verb}"
        async with http.post(url, json=body, headers=_login(who)) as answer:
            await answer.read()
            return answer.status == 200


def _login(who: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(who)}"}


async def _post(http: aiohttp.ClientSession, url: str, tool: str, arguments: bytes, state: str) -> HttpAnswer:
    """Make a call in the revision of 2026-07-28, with arguments in exactly these bytes."""
    more = b',"requestState":%s' % json.dumps(state).encode() if state else b""
    meta = json.dumps(META | {"io.modelcontextprotocol/clientCapabilities": {}}).encode()
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%s","arguments":%s,"_meta":%s%s}}'
        % (tool.encode(), arguments, meta, more)
    )
    headers = {
        "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool,
    }  # fmt: skip
    async with http.post(url, data=body, headers=headers) as answer:
        return HttpAnswer(answer.status, answer.content_type, await answer.read())


def _deadline(about: dict) -> float | None:
    """Return the time at which a pending call expires, as its client was shown it."""
    return datetime.fromisoformat(about["expiresAt"]).timestamp() if about.get("state") == "pending" else None


def _text(found: dict) -> str:
    return " ".join(part["text"] for part in found.get("content", ()))


def _classify(found: dict) -> Answer:
    """Return what a result says."""
    if "requestState" in found:
        return Answer.WAITING
    text = _text(found)
    kind = next((answer for words, answer in TEXTS.items() if words in text), Answer.LOST)
    return Answer.RESULT if text.startswith("ran ") else kind


def _as_result(error: dict) -> dict:
    """Return a JSON-RPC error, of the server or of the gateway, as a result with the same text."""
    return {"content": [{"text": error["message"]}]}
