"""Two servers of the revision 2024-11-05: the SDK's own, as a process, and one that misbehaves on request.

`python sse_server.py` serves the SDK's SSE transport on a free port, which is the first line on stdout.
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from hang import HANG


def serve() -> None:
    """Serve a few tools with the SDK's transport."""
    import socket

    import uvicorn
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("notes")
    runs: list[str] = []

    @server.tool()
    def get_note(name: str) -> str:
        """Get a note."""
        return f"note {name}"

    @server.tool()
    def create_note(name: str) -> str:
        """Create a note."""
        runs.append(name)
        return f"created {name}, {len(runs)} so far"

    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(server.sse_app(), log_level="error")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))


@asynccontextmanager
async def sdk_server():
    """Run the SDK's server; yields the URL of its stream."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(HANG):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}/sse"
    finally:
        process.kill()
        await process.communicate()


@dataclass
class MisbehavingSseServer:
    """A server that misbehaves as its fields say. Its tools are the methods `tool_*`."""

    #: The data of the first event; {path} is the correct address. None for no first event.
    endpoint: str | None = "{path}"
    first_event: str = "endpoint"
    #: The only Authorization header that is accepted; None accepts all.
    authorization: str | None = None
    #: The status of the GET and of the POSTs.
    opens: int = 200
    posts: int = 202
    media_type: str = "text/event-stream"
    received: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    streams: dict[str, web.StreamResponse] = field(default_factory=dict)
    opened: dict[str, web.Request] = field(default_factory=dict)
    ends: dict[str, asyncio.Event] = field(default_factory=dict)
    url: str = ""

    async def __aenter__(self) -> "MisbehavingSseServer":
        app = web.Application()
        app.router.add_get("/sse", self._open)
        app.router.add_post("/messages", self._take)
        self.gone = asyncio.Event()
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/sse"
        return self

    async def __aexit__(self, *_) -> None:
        await self._runner.cleanup()

    def _refused(self, request: web.Request) -> web.Response | None:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.authorization not in (None, request.headers.get("Authorization")):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        return None

    async def _open(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refused(request)) is not None:
            return refused
        stream = web.StreamResponse(status=self.opens, headers={"Content-Type": self.media_type})
        await stream.prepare(request)
        session = str(len(self.streams))
        self.streams[session], self.opened[session] = stream, request
        await stream.write(b": hello\n\n")
        if self.endpoint is not None:
            address = self.endpoint.format(path=f"/messages?s={session}", port=request.url.port)
            await stream.write(f"event: {self.first_event}\ndata: {address}\n\n".encode())
        try:
            await self.ends.setdefault(session, asyncio.Event()).wait()
        finally:
            self.gone.set()
        return stream

    async def _take(self, request: web.Request) -> web.Response:
        if (refused := self._refused(request)) is not None:
            return refused
        frame = await request.json()
        self.received.append(frame)
        if self.posts != 202:
            return web.Response(status=self.posts, headers={"Location": "/elsewhere"})
        await self._answer(self.streams[request.query["s"]], request, frame)
        return web.Response(status=202, text="Accepted")

    async def _answer(self, stream: web.StreamResponse, request: web.Request, frame: dict) -> None:
        match frame:
            case {"method": "initialize", "id": request_id}:
                info = {
                    "protocolVersion": "2024-11-05",
                    "capabilities": {},
                    "serverInfo": {"name": "n", "version": "1"},
                }
                await say(stream, id=request_id, result=info)
            case {"method": "tools/list", "id": request_id}:
                await say(stream, id=request_id, result={"tools": []})
            case {"method": "tools/call", "params": {"name": name}}:
                await getattr(self, f"tool_{name}")(stream, request, frame)
            case {"result": result}:
                self.told = result
                self.answered.set()

    async def tool_echo(self, stream, request, frame) -> None:
        await say(stream, id=frame["id"], result=content(json.dumps(frame["params"])))

    async def tool_write_note(self, stream, request, frame) -> None:
        await say(stream, id=frame["id"], result=content("wrote it"))

    async def tool_silence(self, stream, request, frame) -> None:
        """Take the call and never answer it."""

    async def tool_cut(self, stream, request, frame) -> None:
        """Drop the stream while the call runs."""
        self.opened[request.query["s"]].transport.abort()

    async def tool_end(self, stream, request, frame) -> None:
        """End the stream cleanly without answering the call."""
        self.ends[request.query["s"]].set()

    async def tool_cut_post(self, stream, request, frame) -> None:
        """Drop the POST."""
        request.transport.abort()

    async def tool_ask(self, stream, request, frame) -> None:
        """Send the client a request, and answer the POST only after the client's answer."""
        self.answered = asyncio.Event()
        await say(stream, id="s1", method="roots/list")
        await self.answered.wait()
        await say(stream, id=frame["id"], result=content(f"you said {self.told}"))

    async def tool_progress(self, stream, request, frame) -> None:
        token = frame["params"]["_meta"]["progressToken"]
        await say(stream, method="notifications/progress", params={"progressToken": token, "progress": 1})
        await say(stream, id=frame["id"], result=content(f"token {token}"))

    async def tool_noise(self, stream, request, frame) -> None:
        other = {"jsonrpc": "2.0", "id": frame["id"], "result": content("of another type")}
        await stream.write(f"event: other\ndata: {json.dumps(other)}\n\n: x\n\n".encode())
        await stream.write(b'data: no JSON\n\ndata: {"method": "x", "params": [1]}\n\n')
        await say(stream, id=12345, result={})
        await say(stream, id=frame["id"], result=content("after the noise"))

    async def tool_announce(self, stream, request, frame) -> None:
        await say(stream, id=frame["id"], result=content("announced"))
        await say(stream, method="notifications/tools/list_changed")


async def say(stream: web.StreamResponse, **frame) -> None:
    await stream.write(f"event: message\ndata: {json.dumps({'jsonrpc': '2.0', **frame})}\n\n".encode())


def content(text: str) -> dict:
    return {"content": [{"type": "text", "text": text}]}


if __name__ == "__main__":
    serve()
