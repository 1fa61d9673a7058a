"""A naive MCP server over HTTP that records every request and answers as configured.

It stands for a server that runs every call it receives: a test fails if it records a call that was not approved.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from hang import HANG

Handler = Callable[[web.Request, dict], Awaitable[web.StreamResponse]]

TOOLS = [
    {"name": "get_note", "description": "Get a note.", "inputSchema": {"type": "object"}},
    {"name": "create_note", "description": "Create a note.", "inputSchema": {"type": "object"}},
    {"name": "delete_note", "description": "Delete a note.", "inputSchema": {"type": "object"}},
]


@dataclass
class RecordedRequest:
    """One request, as received."""

    verb: str
    headers: dict[str, str]
    body: bytes

    @property
    def frame(self) -> dict:
        return json.loads(self.body) if self.body else {}


@dataclass
class RecordingServer:
    """The server. `calls` are the tools/call frames that reached it."""

    received: list[RecordedRequest] = field(default_factory=list)
    tools: list[dict] = field(default_factory=lambda: [dict(tool) for tool in TOOLS])
    on_call: Handler | None = None
    on_ping: Handler | None = None
    on_get: Handler | None = None
    on_delete: Handler | None = None
    on_listen: Handler | None = None
    capabilities: dict = field(default_factory=lambda: {"tools": {}})
    #: Called when a session is opened; a response that it returns is sent instead.
    on_initialize: Handler | None = None
    #: Called for tools/list; a response that it returns is sent instead.
    on_list: Handler | None = None
    modern: bool = True
    session: str | None = None
    name: str = "recorder"
    url: str = ""

    @property
    def calls(self) -> list[RecordedRequest]:
        return [one for one in self.received if one.frame.get("method") == "tools/call"]

    async def __aenter__(self) -> "RecordingServer":
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/mcp", self._serve)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}/mcp"
        self._came = asyncio.Event()
        return self

    async def __aexit__(self, *_) -> None:
        await self.runner.cleanup()

    async def called(self, times: int = 1) -> list[RecordedRequest]:
        """Wait until this many calls have arrived."""
        async with asyncio.timeout(HANG):
            while len(self.calls) < times:
                self._came.clear()
                await self._came.wait()
        return self.calls

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.received.append(
            RecordedRequest(request.method, {k.lower(): v for k, v in request.headers.items()}, body)
        )
        self._came.set()
        if request.method == "GET" and self.on_get is not None:
            return await self.on_get(request, {})
        if request.method == "DELETE" and self.on_delete is not None:
            return await self.on_delete(request, {})
        if request.method != "POST":
            return web.Response(status=405)
        frame = json.loads(body)
        if "id" not in frame or "method" not in frame:
            return web.Response(status=202)
        return await self.answer(request, frame)

    async def answer(self, request: web.Request, frame: dict) -> web.StreamResponse:
        method = frame["method"]
        if method == "server/discover" and not self.modern:
            return error(frame, -32601, "Method not found", status=404)
        if method == "server/discover":
            return result(
                frame,
                {
                    "resultType": "complete",
                    "supportedVersions": ["2026-07-28"],
                    "capabilities": self.capabilities,
                    "ttlMs": 0,
                    "cacheScope": "private",
                },
            )
        if method == "initialize":
            if (
                self.on_initialize is not None
                and (answer := await self.on_initialize(request, frame)) is not None
            ):
                return answer
            headers = {"Mcp-Session-Id": self.session} if self.session else {}
            info = {"name": self.name, "version": "1"}
            return result(
                frame,
                {
                    "protocolVersion": frame["params"]["protocolVersion"],
                    "capabilities": self.capabilities,
                    "serverInfo": info,
                },
                headers,
            )
        if method == "tools/list":
            if self.on_list is not None and (answer := await self.on_list(request, frame)) is not None:
                return answer
            return result(
                frame, {"resultType": "complete", "tools": self.tools, "ttlMs": 0, "cacheScope": "public"}
            )
        if method == "subscriptions/listen" and self.on_listen is not None:
            return await self.on_listen(request, frame)
        if method == "ping" and self.on_ping is not None:
            return await self.on_ping(request, frame)
        if method == "tools/call" and self.on_call is not None:
            return await self.on_call(request, frame)
        return result(
            frame,
            {
                "resultType": "complete",
                "content": [
                    {
                        "type": "text",
                        "text": f"ran {frame['params'].get('name') if isinstance(frame.get('params'), dict) else method}",
                    }
                ],
            },
        )


def result(frame: dict, value: dict, headers: dict | None = None) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": frame["id"], "result": value}, headers=headers)


def error(frame: dict, code: int, message: str, status: int = 200) -> web.Response:
    return web.json_response(
        {"jsonrpc": "2.0", "id": frame["id"], "error": {"code": code, "message": message}}, status=status
    )
