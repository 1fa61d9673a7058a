"""Requests of a model through real clients with their own timeouts, approved after a delay.

A model wants one call, and repeats it until it reads that the call is done. Each cell is one client, one transport, one
delay. All cells run at the same time in real seconds against one gateway, each as its own agent, so that they do not
affect each other. A robot approves every call after the cell's delay.
"""

import asyncio
import json
import os
import sys
import uuid
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from typing import NamedTuple

import third_party
from npm import NODE
from process import OKAYED, Person, free_ports, gateway_process, sha256, token
from real_clients import SCRIPTS, ClientScript, end_process
from recording_server import RecordingServer, result
from slack import FakeSlack, text_of

CLIENTS = {
    "sdk-2-auto": ClientScript(sys.executable, "sdk2.py", "auto"),
    "sdk-2-legacy": ClientScript(sys.executable, "sdk2.py", "legacy"),
    "sdk-1": ClientScript(third_party.program("mcp1"), "sdk1.py", "session"),
    "langchain": ClientScript(third_party.program("mcp1"), "sdk1.py", "langchain"),
    "fastmcp": ClientScript(third_party.program("fastmcp"), "fastmcp_client.py", "auto"),
    "ts-1": ClientScript(NODE, "ts_sdk1.mjs", ""),
    "ts-2": ClientScript(NODE, "ts_sdk2.mjs", "auto"),
    "openai-agents": ClientScript(third_party.program("openai"), "openai_agents.py", ""),
    "openai-agents-sdk-1": ClientScript(third_party.program("openai1"), "openai_agents.py", ""),
    "pydantic-ai": ClientScript(third_party.program("pydantic"), "pydantic_agent.py", ""),
}
TRANSPORTS = ("http", "stdio")
TOOL = {
    "name": "create_note",
    "description": "Create a note.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}
#: Seconds after the approval for which a model repeats its call.
RETRIES_FOR = 60


class Cell(NamedTuple):
    """A client, its transport, and the seconds after which its call is approved."""

    client: str
    transport: str
    after: int

    @property
    def name(self) -> str:
        """The agent's name, and the text of its call."""
        return f"{self.client}.{self.transport}.{self.after}s"


@dataclass(frozen=True, kw_only=True)
class RequestOutcome:
    """The result of a request: calls held, cards posted, runs at the server, and every text that the model read."""

    holds: int
    prompts: int
    runs: int
    read: Sequence[str]

    @property
    def succeeded(self) -> bool:
        """Whether it was one hold, one prompt and one run, and the model read the result."""
        told = bool(self.read) and self.read[-1].startswith("done:")
        return (self.holds, self.prompts, self.runs, told) == (1, 1, 1, True)

    @property
    def summary(self) -> str:
        """The texts that the model read, with repetitions counted."""
        told = [(text, len(list(same))) for text, same in groupby(map(_short, self.read))]
        return ", ".join(text if count == 1 else f"{count} x {text}" for text, count in told)


def _short(text: str) -> str:
    return next((word for word in ("done", "WAITING") if text.startswith(word)), " ".join(text.split())[:90])


async def run_cells(cells: Sequence[Cell], folder: Path) -> Mapping[Cell, RequestOutcome]:
    """Run all cells at the same time; return the outcome of each."""
    third_party.install()
    async with _open_testbed(cells, folder) as testbed:
        async with asyncio.TaskGroup() as tasks:
            robot = tasks.create_task(_approve_cards(testbed, cells))
            told = await asyncio.gather(*(testbed.run(way, list(those)) for way, those in _ways(cells)))
            robot.cancel()
        read = {name: texts for some in told for name, texts in some.items()}
        held = Counter(call["agent"] for call in await _all_calls(testbed.alice))
        return {cell: testbed.outcome(cell, held, read.get(cell.name, ())) for cell in cells}


def _ways(cells: Iterable[Cell]):
    """Return the cells of each client and transport."""
    return [(way, list(those)) for way, those in groupby(sorted(cells), lambda cell: cell[:2])]


@dataclass(kw_only=True)
class _Testbed:
    recorder: RecordingServer
    slack: FakeSlack
    alice: Person
    url: str
    config: Path
    folder: Path

    async def run(self, way: tuple[str, str], cells: list[Cell]) -> dict[str, list[str]]:
        """Let a client make its requests; return the texts that its models read, by the name of the cell."""
        client, transport = CLIENTS[way[0]], way[1]
        with (self.folder / f"{'.'.join(way)}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                client.program, str(SCRIPTS / client.script), stdin=PIPE, stdout=PIPE, stderr=log,
                env={**os.environ, "HOME": str(self.folder)}, limit=1 << 20,
            )  # fmt: skip
            for cell in cells:
                asked = {
                    "style": client.style, "at": self._at(cell, transport), "retry_for": cell.after + RETRIES_FOR,
                    "tool": "create_note", "arguments": {"text": cell.name},
                }  # fmt: skip
                process.stdin.write(json.dumps(asked).encode() + b"\n")
            lines = [json.loads(line) for _ in cells if (line := await process.stdout.readline())]
            await end_process(process)
        return {said["arguments"]["text"]: said["read"] for said in lines}

    def _at(self, cell: Cell, transport: str) -> dict:
        if transport == "http":
            return {"url": self.url, "headers": {"Authorization": f"Bearer {token(cell.name)}"}}
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        env = {**kept, "HOME": str(self.folder), "OKAYED_AGENT_TOKEN": token(cell.name)}
        return {"command": [OKAYED, "stdio", "notes", "-c", str(self.config)], "env": env}

    def outcome(self, cell: Cell, held: Counter[str], read: Sequence[str]) -> RequestOutcome:
        return RequestOutcome(
            holds=held[cell.name],
            prompts=sum(_about(message.blocks, cell) for message in self.slack.messages),
            runs=sum(one.frame["params"]["arguments"]["text"] == cell.name for one in self.recorder.calls),
            read=read,
        )


async def _open_session(request, frame):
    """Open a session, as most servers do: without one, the gateway cannot tell clients apart."""
    info = {"protocolVersion": frame["params"]["protocolVersion"], "capabilities": {"tools": {}}}
    opened = {**info, "serverInfo": {"name": "notes", "version": "1"}}
    return result(frame, opened, {"Mcp-Session-Id": uuid.uuid4().hex})


async def _finish(request, frame):
    text = f"done: {frame['params']['arguments']['text']}"
    return result(frame, {"resultType": "complete", "content": [{"type": "text", "text": text}]})


def _about(blocks: list, cell: Cell) -> bool:
    return f'"{cell.name}"' in text_of(blocks)


async def _all_calls(person: Person) -> list[dict]:
    found, query = [], {}
    while query is not None:
        async with person.api.get(f"{person.inbox}/api/v1/calls", params=query) as answer:
            page = await answer.json()
        found += page["calls"]
        query = {"before": page["next"]} if page["next"] else None
    return found


async def _approve_cards(testbed: _Testbed, cells: Sequence[Cell]) -> None:
    """Approve each call after its cell's delay, counted from its card."""
    after = {cell.name: cell.after for cell in cells}
    async with asyncio.TaskGroup() as tasks:
        for number in count(1):
            await testbed.slack.until(lambda number=number: testbed.slack.messages[number - 1 :], None)
            call_id = testbed.slack.messages[number - 1].metadata["event_payload"]["id"]
            call = await testbed.alice.call(call_id)
            tasks.create_task(_approve_later(testbed.alice, call, after[call["agent"]]))


async def _approve_later(person: Person, call: dict, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await person.post(call["id"], "approve", digest=call["digest"])


@asynccontextmanager
async def _open_testbed(cells: Sequence[Cell], folder: Path):
    async with AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(
            RecordingServer(tools=[TOOL], on_call=_finish, on_initialize=_open_session)
        )
        slack = await stack.enter_async_context(FakeSlack())
        ports = free_ports(2)
        file = folder / "okayed.yaml"
        file.write_text(_config(recorder, slack, ports, folder / "okayed.db", cells))
        file.chmod(0o600)
        process = await stack.enter_async_context(gateway_process(file, *ports))
        alice = await stack.enter_async_context(Person(process.inbox))
        url = f"{process.agents}/mcp/notes"
        yield _Testbed(recorder=recorder, slack=slack, alice=alice, url=url, config=file, folder=folder)


def _config(
    recorder: RecordingServer, slack: FakeSlack, ports: list[int], store: Path, cells: Sequence[Cell]
) -> str:
    agents = ", ".join(f"{{name: {cell.name}, token_sha256: {sha256(token(cell.name))}}}" for cell in cells)
    return f"""
listen: 127.0.0.1:{ports[0]}
store: sqlite:///{store}
servers: {{notes: {{url: '{recorder.url}'}}}}
agents: [{agents}]
approvers: [{{name: alice, slack: U01ALICE, token_sha256: {sha256(token("alice"))}}}]
policy: {{default: require_approval}}
slack: {{bot_token: xoxb-1, app_token: xapp-1, channel: C0APPROVALS, api_url: '{slack.api_url}'}}
inbox: {{listen: "127.0.0.1:{ports[1]}"}}
"""


def table(found: Mapping[Cell, RequestOutcome]) -> str:
    """Return the outcomes as a table."""
    rows = [
        f"{'ok ' if outcome.succeeded else 'BAD'} {cell.client:<20} {cell.transport:<5} {cell.after:>3} s"
        f"  holds {outcome.holds}  prompts {outcome.prompts}  runs {outcome.runs}  read {len(outcome.read)}: {outcome.summary}"
        for cell, outcome in sorted(found.items())
    ]
    return "\n".join(rows)
