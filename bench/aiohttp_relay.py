"""A bare relay: aiohttp's server and client on uvloop. `python bench/aiohttp_relay.py TARGET PORT`.

It has no checks, policy or audit trail, and sends fixed headers. It streams the response, as a gateway must.
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def relay_to(target: str):
    """Return a handler that forwards each request to *target* and streams the response."""

    async def forward(request: web.Request) -> web.StreamResponse:
        async with request.app["http"].post(target, data=await request.read(), headers=HEADERS) as reply:
            response = web.StreamResponse(
                status=reply.status, headers={"Content-Type": reply.headers["Content-Type"]}
            )
            await response.prepare(request)
            async for chunk in reply.content.iter_any():
                await response.write(chunk)
            return response

    return forward


async def serve(target: str, port: int) -> None:
    app = web.Application(client_max_size=4 << 20)
    app.router.add_post("/mcp", relay_to(target))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1000)) as http:
        app["http"] = http
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
