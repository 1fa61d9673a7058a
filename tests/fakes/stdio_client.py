"""A client that launches `okayed stdio` and speaks to it line by line, in whichever revision it is told."""

import asyncio
import json
import os
from contextlib import asynccontextmanager

from hang import HANG
from process import OKAYED

INFO = {"name": "launcher", "version": "1"}


class Launched:
    """A command under way: what is typed goes to it, and what it writes is kept by id."""

    def __init__(self, process: asyncio.subprocess.Process, revision: str) -> None:
        self.process = process
        self.revision = revision
        self.modern = revision >= "2026"
        #: What came that answers nobody.
        self.others: list[dict] = []

    def type(self, **frame) -> None:
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
            self.type(id=0, method="initialize", params=params)
            assert (await self.read(0))["result"]["protocolVersion"] == self.revision
            self.type(method="notifications/initialized")

    def call(self, request_id, tool: str, **arguments) -> None:
        params = {"name": tool, "arguments": arguments}
        if self.modern:
            about = {"protocolVersion": self.revision, "clientInfo": INFO, "clientCapabilities": {}}
            params["_meta"] = {f"io.modelcontextprotocol/{name}": value for name, value in about.items()}
        self.type(id=request_id, method="tools/call", params=params)

    async def told(self, request_id) -> str:
        """Return the text that answers this call, or the message of its error."""
        frame = await self.read(request_id)
        return frame["result"]["content"][0]["text"] if "result" in frame else frame["error"]["message"]


@asynccontextmanager
async def launched(revision: str, *args: str, **environ: str):
    """Launch `okayed stdio` with these arguments."""
    process = await asyncio.create_subprocess_exec(
        OKAYED, "stdio", *args, env={**os.environ, **environ},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        client = Launched(process, revision)
        await client.open()
        yield client
        process.stdin.close()
        async with asyncio.timeout(HANG):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
