"""Intentions: what a model wants once, through a real client with its own timers, approved when a person is ready.

Each cell is one client, one transport, one delay. All of them run side by side in real seconds, against one gateway,
each as an agent of its own, so that nothing is learned from another cell. A robot approves every call so many seconds
after it was asked.
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
from real_clients import SCRIPTS, Client, ended
from recording_server import Recorder, result
from slack import FakeSlack, text_of

CLIENTS = {
    "sdk-2-auto": Client(sys.executable, "sdk2.py", "auto"),
    "sdk-2-legacy": Client(sys.executable, "sdk2.py", "legacy"),
    "sdk-1": Client(third_party.program("mcp1"), "sdk1.py", "session"),
    "langchain": Client(third_party.program("mcp1"), "sdk1.py", "langchain"),
    "fastmcp": Client(third_party.program("fastmcp"), "fastmcp_client.py", "auto"),
    "ts-1": Client(NODE, "ts_sdk1.mjs", ""),
    "ts-2": Client(NODE, "ts_sdk2.mjs", "auto"),
    "openai-agents": Client(third_party.program("openai"), "openai_agents.py", ""),
    "openai-agents-sdk-1": Client(third_party.program("openai1"), "openai_agents.py", ""),
    "pydantic-ai": Client(third_party.program("pydantic"), "pydantic_agent.py", ""),
}
TRANSPORTS = ("http", "stdio")
TOOL = {
    "name": "create_note",
    "description": "Create a note.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}
#: Seconds after the approval for which a model goes on asking.
INSISTS = 60


class Cell(NamedTuple):
    """A client, how it reaches the gateway, and after how many seconds a call of it is approved."""

    client: str
    transport: str
    after: int

    @property
    def name(self) -> str:
        """The name of its agent, and the text of its call."""
        return f"{self.client}.{self.transport}.{self.after}s"


@dataclass(frozen=True, kw_only=True)
class Came:
    """What an intention came to: calls held, cards posted, runs at the server, and every text that the model read."""

    holds: int
    prompts: int
    runs: int
    read: Sequence[str]

    @property
    def well(self) -> bool:
        """Whether it was one hold, one prompt and one run, and the model knows."""
        told = bool(self.read) and self.read[-1].startswith("done:")
        return (self.holds, self.prompts, self.runs, told) == (1, 1, 1, True)

    @property
    def story(self) -> str:
        """What the model read, the same things in a row counted."""
        told = [(text, len(list(same))) for text, same in groupby(map(_short, self.read))]
        return ", ".join(text if count == 1 else f"{count} x {text}" for text, count in told)


def _short(text: str) -> str:
    return next((word for word in ("done", "WAITING") if text.startswith(word)), " ".join(text.split())[:90])


async def intentions(cells: Sequence[Cell], folder: Path) -> Mapping[Cell, Came]:
    """Run all cells side by side; returns what each came to."""
    third_party.install()
    async with _scene(cells, folder) as scene:
        async with asyncio.TaskGroup() as tasks:
            robot = tasks.create_task(_approving(scene, cells))
            told = await asyncio.gather(*(scene.run(way, list(those)) for way, those in _ways(cells)))
            robot.cancel()
        read = {name: texts for some in told for name, texts in some.items()}
        held = Counter(call["agent"] for call in await _all_calls(scene.alice))
        return {cell: scene.came(cell, held, read.get(cell.name, ())) for cell in cells}


def _ways(cells: Iterable[Cell]):
    """Return the cells of each client and transport."""
    return [(way, list(those)) for way, those in groupby(sorted(cells), lambda cell: cell[:2])]


@dataclass(kw_only=True)
class _Scene:
    recorder: Recorder
    slack: FakeSlack
    alice: Person
    url: str
    config: Path
    folder: Path

    async def run(self, way: tuple[str, str], cells: list[Cell]) -> dict[str, list[str]]:
        """Have a client go after its intentions; returns what its model read, by the name of the cell."""
        client, transport = CLIENTS[way[0]], way[1]
        with (self.folder / f"{'.'.join(way)}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                client.program, str(SCRIPTS / client.script), stdin=PIPE, stdout=PIPE, stderr=log,
                env={**os.environ, "HOME": str(self.folder)}, limit=1 << 20,
            )  # fmt: skip
            for cell in cells:
                asked = {
                    "style": client.style, "at": self._at(cell, transport), "insist": cell.after + INSISTS,
                    "tool": "create_note", "arguments": {"text": cell.name},
                }  # fmt: skip
                process.stdin.write(json.dumps(asked).encode() + b"\n")
            lines = [json.loads(line) for _ in cells if (line := await process.stdout.readline())]
            await ended(process)
        return {said["arguments"]["text"]: said["read"] for said in lines}

    def _at(self, cell: Cell, transport: str) -> dict:
        if transport == "http":
            return {"url": self.url, "headers": {"Authorization": f"Bearer {token(cell.name)}"}}
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        env = {**kept, "HOME": str(self.folder), "OKAYED_AGENT_TOKEN": token(cell.name)}
        return {"command": [OKAYED, "stdio", "notes", "-c", str(self.config)], "env": env}

    def came(self, cell: Cell, held: Counter[str], read: Sequence[str]) -> Came:
        return Came(
            holds=held[cell.name],
            prompts=sum(_about(message.blocks, cell) for message in self.slack.messages),
            runs=sum(one.frame["params"]["arguments"]["text"] == cell.name for one in self.recorder.calls),
            read=read,
        )


async def _opened(request, frame):
    """Open a session, as most servers do: without one nobody knows which client makes a call."""
    info = {"protocolVersion": frame["params"]["protocolVersion"], "capabilities": {"tools": {}}}
    opened = {**info, "serverInfo": {"name": "notes", "version": "1"}}
    return result(frame, opened, {"Mcp-Session-Id": uuid.uuid4().hex})


async def _done(request, frame):
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


async def _approving(scene: _Scene, cells: Sequence[Cell]) -> None:
    """Approve each call when its card has been there for as long as its cell says."""
    after = {cell.name: cell.after for cell in cells}
    async with asyncio.TaskGroup() as tasks:
        for number in count(1):
            await scene.slack.until(lambda number=number: scene.slack.messages[number - 1 :], None)
            call_id = scene.slack.messages[number - 1].metadata["event_payload"]["id"]
            call = await scene.alice.call(call_id)
            tasks.create_task(_approve_later(scene.alice, call, after[call["agent"]]))


async def _approve_later(person: Person, call: dict, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await person.post(call["id"], "approve", digest=call["digest"])


@asynccontextmanager
async def _scene(cells: Sequence[Cell], folder: Path):
    async with AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(
            Recorder(tools=[TOOL], on_call=_done, on_initialize=_opened)
        )
        slack = await stack.enter_async_context(FakeSlack())
        ports = free_ports(2)
        file = folder / "okayed.yaml"
        file.write_text(_config(recorder, slack, ports, folder / "okayed.db", cells))
        file.chmod(0o600)
        process = await stack.enter_async_context(gateway_process(file, *ports))
        alice = await stack.enter_async_context(Person(process.inbox))
        url = f"{process.agents}/mcp/notes"
        yield _Scene(recorder=recorder, slack=slack, alice=alice, url=url, config=file, folder=folder)


def _config(
    recorder: Recorder, slack: FakeSlack, ports: list[int], store: Path, cells: Sequence[Cell]
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


def table(found: Mapping[Cell, Came]) -> str:
    """Return what came of each cell as a table."""
    rows = [
        f"{'ok ' if came.well else 'BAD'} {cell.client:<20} {cell.transport:<5} {cell.after:>3} s"
        f"  holds {came.holds}  prompts {came.prompts}  runs {came.runs}  read {len(came.read)}: {came.story}"
        for cell, came in sorted(found.items())
    ]
    return "\n".join(rows)
