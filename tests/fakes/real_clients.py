"""Real MCP clients, each a script in a process of its own, before two running gateways: one holds long, the other a second.

What can befall a call is in `cases`.
"""

import asyncio
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

import third_party
from hang import HANG
from npm import MODULES, NODE
from process import OKAYED, Person, free_ports, gateway_process, sha256, token
from recording_server import Recorder, result

SCRIPTS = Path(__file__).with_name("clients")
#: For how long each gateway keeps a connection open.
HOLD_FOR = {"patient": "auto", "brief": "0.1s"}
#: A client checks what a tool with an outputSchema returns; a refusal must pass that check too.
WRITES = {
    "name": "create_note",
    "description": "Create a note.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    "outputSchema": {"type": "object", "properties": {"note": {"type": "string"}}, "required": ["note"]},
}
READS = {**WRITES, "name": "get_note", "description": "Get a note."}


class Client(NamedTuple):
    """A client: what runs its script, the script, and which of the script's clients it is."""

    program: str
    script: str
    style: str


class Outcome(NamedTuple):
    """What a client says a call came to. `failed` is the client's own error."""

    text: str
    is_error: bool
    failed: str


@dataclass(kw_only=True)
class Scene:
    """The gateways, the server behind them, the person before them, and the clients that were started so far."""

    recorder: Recorder
    agents: dict[str, str]
    configs: dict[str, Path]
    people: dict[str, Person]
    stack: AsyncExitStack
    folder: Path
    scripts: dict[tuple[str, str, str], Process] = field(default_factory=dict)
    numbers: count = field(default_factory=count)

    def note(self) -> str:
        """Return a text that no other call has."""
        return f"note-{next(self.numbers):04d}"

    def ran(self, note: str) -> int:
        """Return how often the server ran the call with this text."""
        return sum(one.frame["params"]["arguments"]["text"] == note for one in self.recorder.calls)

    def at(self, gateway: str, transport: str) -> dict:
        """Return how a client reaches a gateway."""
        if transport == "http":
            return {"url": self.agents[gateway]}
        commands = {
            "stdio": [OKAYED, "stdio", "notes", "-c", str(self.configs[gateway])],
            "mcp-remote": [
                NODE, str(MODULES / "mcp-remote" / "dist" / "proxy.js"), self.agents[gateway], "--transport", "http-only",
            ],
        }  # fmt: skip
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "MCP_REMOTE_CONFIG_DIR": str(self.folder),
        }
        return {"command": commands[transport], "env": env}

    async def process(self, client: Client, transport: str) -> Process:
        """Return the process of a client's script, started when it is not there."""
        key = (client.program, client.script, transport)
        if key not in self.scripts:
            log = self.stack.enter_context((self.folder / f"{client.script}-{transport}.log").open("wb"))
            process = await asyncio.create_subprocess_exec(
                client.program, str(SCRIPTS / client.script), stdin=PIPE, stdout=PIPE, stderr=log,
                env={**os.environ, "HOME": str(self.folder)},
            )  # fmt: skip
            self.stack.push_async_callback(ended, process)
            self.scripts[key] = process
        return self.scripts[key]

    async def call(
        self, client: Client, transport: str, note: str, *,
        tool: str = "create_note", gateway: str = "patient", seconds: float | None = None,
    ) -> Outcome:  # fmt: skip
        """Have a client call a tool. After so many seconds its own timer ends the call."""
        asked = {
            "style": client.style, "at": self.at(gateway, transport),
            "tool": tool, "arguments": {"text": note}, "seconds": seconds,
        }  # fmt: skip
        process = await self.process(client, transport)
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        try:
            said = json.loads(await process.stdout.readline())
        except BaseException:  # what it says from now on would answer the wrong question
            process.kill()
            del self.scripts[client.program, client.script, transport]
            raise
        return Outcome(said.get("text", ""), said.get("isError", False), said.get("error", ""))

    async def decide(
        self, note: str, verb: str = "approve", *, gateway: str = "patient", **more: str
    ) -> None:
        """Wait until the call with this text is pending, and decide it."""
        person = self.people[gateway]
        held = await person.waiting(note)
        assert self.ran(note) == 0
        status, _ = await person.post(held["id"], verb, digest=held["digest"], **more)
        assert status == 200

    async def until(self, note: str, so: Callable[[dict], bool]) -> None:
        """Wait until the gateway that holds long shows the call with this text as *so* wants it."""
        await self.people["patient"].until(lambda call: note in call["arguments_text"] and so(call))


async def ended(process: Process) -> None:
    """Let a script close its connections and end."""
    process.stdin.close()
    try:
        async with asyncio.timeout(HANG):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def a_scene(folder: Path):
    """Run the gateways; yields the scene."""
    third_party.install()
    async with AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(Recorder(tools=[READS, WRITES], on_call=written))
        scene = Scene(recorder=recorder, agents={}, configs={}, people={}, stack=stack, folder=folder)
        for gateway, hold_for in HOLD_FOR.items():
            ports = free_ports(2)
            scene.configs[gateway] = file = folder / f"{gateway}.yaml"
            file.write_text(config(recorder, ports, folder / f"{gateway}.db", hold_for))
            file.chmod(0o600)
            process = await stack.enter_async_context(gateway_process(file, *ports))
            scene.agents[gateway] = f"{process.agents}/mcp/notes"
            scene.people[gateway] = await stack.enter_async_context(Person(process.inbox))
        yield scene


def config(recorder: Recorder, ports: list[int], store: Path, hold_for: str) -> str:
    agents, inbox = ports
    return f"""
listen: 127.0.0.1:{agents}
store: sqlite:///{store}
servers: {{notes: {{url: '{recorder.url}'}}}}
approvers: [{{name: alice, token_sha256: {sha256(token("alice"))}}}]
policy: {{default: require_approval, tools: {{get_note: {{action: allow}}}}}}
approvals: {{hold_for: {hold_for}}}
inbox: {{listen: "127.0.0.1:{inbox}"}}
"""


async def written(request, frame):
    note = frame["params"]["arguments"]["text"]
    content = [{"type": "text", "text": f"done: {note}"}]
    return result(frame, {"resultType": "complete", "content": content, "structuredContent": {"note": note}})
