"""A client that launches `okayed stdio` and speaks any revision of the protocol with it."""

import asyncio
import json
import os
from contextlib import asynccontextmanager

from hang import HANG
from process import OKAYED

INFO = {"name": "launcher", "version": "1"}


class StdioClient:
    """The client of a running command."""

    def __init__(self, process: asyncio.subprocess.Process, revision: str) -> None:
        self.process = process
        self.revision = revision
        self.modern = revision >= "2026"
        #: Frames received that answer no request.
        self.others: list[dict] = []

    def send(self, **frame) -> None:
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **frame}).encode() + b"\n")

    async def read(self, request_id) -> dict:
        """Return the answer to this request."""
        async with asyncio.timeout(HANG):
            while line := await self.process.stdout.readline():
                frame = json.loads(line)
                if frame.get("id") == request_id and "method" not in frame:
                    return frame
                self.others.append(frame)
        raise EOFError

    async def open(self) -> None:
        """Do the handshake, in revisions that have one."""
        if not self.modern:
            params = {"protocolVersion": self.revision, "capabilities": {}, "clientInfo": INFO}
            self.send(id=0, method="initialize", params=params)
            assert (await self.read(0))["result"]["protocolVersion"] == self.revision
            self.send(method="notifications/initialized")

    def call(self, request_id, tool: str, **arguments) -> None:
        params = {"name": tool, "arguments": arguments}
        if self.modern:
            about = {"protocolVersion": self.revision, "clientInfo": INFO, "clientCapabilities": {}}
            params["_meta"] = {f"io.modelcontextprotocol/{name}": value for name, value in about.items()}
        self.send(id=request_id, method="tools/call", params=params)

    async def result_text(self, request_id) -> str:
        """Return the text that answers this call, or the message of its error."""
        frame = await self.read(request_id)
        return frame["result"]["content"][0]["text"] if "result" in frame else frame["error"]["message"]


@asynccontextmanager
async def open_stdio_client(revision: str, *args: str, **environ: str):
    """Launch `okayed stdio` with these arguments."""
    process = await asyncio.create_subprocess_exec(
        OKAYED, "stdio", *args, env={**os.environ, **environ},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        client = StdioClient(process, revision)
        await client.open()
        yield client
        process.stdin.close()
        async with asyncio.timeout(HANG):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
