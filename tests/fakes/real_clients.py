"""Real MCP clients, each a script in its own process, and two gateways: one keeps connections open, one only briefly.

The test cases are in `client_cases`.
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
from recording_server import RecordingServer, result

SCRIPTS = Path(__file__).with_name("clients")
#: How long each gateway keeps a connection open.
HOLD_FOR = {"patient": "auto", "brief": "0.1s"}
#: A client checks what a tool with an outputSchema returns; a refusal must pass that check too.
WRITES = {
    "name": "create_note",
    "description": "Create a note.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    "outputSchema": {"type": "object", "properties": {"note": {"type": "string"}}, "required": ["note"]},
}
READS = {**WRITES, "name": "get_note", "description": "Get a note."}


class ClientScript(NamedTuple):
    """A client: the program that runs its script, the script, and the script's mode."""

    program: str
    script: str
    style: str


class ClientOutcome(NamedTuple):
    """The result of a call as the client reports it. `failed` is the client's own error."""

    text: str
    is_error: bool
    failed: str


@dataclass(kw_only=True)
class Testbed:
    """The gateways, their server, their approver, and the clients started so far."""

    recorder: RecordingServer
    agents: dict[str, str]
    configs: dict[str, Path]
    people: dict[str, Person]
    stack: AsyncExitStack
    folder: Path
    scripts: dict[tuple[str, str, str], Process] = field(default_factory=dict)
    numbers: count = field(default_factory=count)

    def note(self) -> str:
        """Return a text that is unique to one call."""
        return f"note-{next(self.numbers):04d}"

    def ran(self, note: str) -> int:
        """Return how many times the server ran the call with this text."""
        return sum(one.frame["params"]["arguments"]["text"] == note for one in self.recorder.calls)

    def at(self, gateway: str, transport: str) -> dict:
        """Return a gateway's URL or command for a client."""
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

    async def process(self, client: ClientScript, transport: str) -> Process:
        """Return the process of a client's script; start it if it is not running."""
        key = (client.program, client.script, transport)
        if key not in self.scripts:
            log = self.stack.enter_context((self.folder / f"{client.script}-{transport}.log").open("wb"))
            process = await asyncio.create_subprocess_exec(
                client.program, str(SCRIPTS / client.script), stdin=PIPE, stdout=PIPE, stderr=log,
                env={**os.environ, "HOME": str(self.folder)},
            )  # fmt: skip
            self.stack.push_async_callback(end_process, process)
            self.scripts[key] = process
        return self.scripts[key]

    async def call(
        self, client: ClientScript, transport: str, note: str, *,
        tool: str = "create_note", gateway: str = "patient", seconds: float | None = None,
    ) -> ClientOutcome:  # fmt: skip
        """Let a client call a tool, with the client's own timeout in seconds."""
        asked = {
            "style": client.style, "at": self.at(gateway, transport),
            "tool": tool, "arguments": {"text": note}, "seconds": seconds,
        }  # fmt: skip
        process = await self.process(client, transport)
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        try:
            said = json.loads(await process.stdout.readline())
        except BaseException:  # its later output would answer the wrong call
            process.kill()
            del self.scripts[client.program, client.script, transport]
            raise
        return ClientOutcome(said.get("text", ""), said.get("isError", False), said.get("error", ""))

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
        """Wait until *so* is true for the call with this text at the patient gateway."""
        await self.people["patient"].until(lambda call: note in call["arguments_text"] and so(call))


async def end_process(process: Process) -> None:
    """Let a script close its connections and end."""
    process.stdin.close()
    try:
        async with asyncio.timeout(HANG):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def open_testbed(folder: Path):
    """Run the gateways; yields the testbed."""
    third_party.install()
    async with AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(RecordingServer(tools=[READS, WRITES], on_call=write_note))
        testbed = Testbed(recorder=recorder, agents={}, configs={}, people={}, stack=stack, folder=folder)
        for gateway, hold_for in HOLD_FOR.items():
            ports = free_ports(2)
            testbed.configs[gateway] = file = folder / f"{gateway}.yaml"
            file.write_text(config(recorder, ports, folder / f"{gateway}.db", hold_for))
            file.chmod(0o600)
            process = await stack.enter_async_context(gateway_process(file, *ports))
            testbed.agents[gateway] = f"{process.agents}/mcp/notes"
            testbed.people[gateway] = await stack.enter_async_context(Person(process.inbox))
        yield testbed


def config(recorder: RecordingServer, ports: list[int], store: Path, hold_for: str) -> str:
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


async def write_note(request, frame):
    note = frame["params"]["arguments"]["text"]
    content = [{"type": "text", "text": f"done: {note}"}]
    return result(frame, {"resultType": "complete", "content": content, "structuredContent": {"note": note}})
