"""FastMCP's client; its style is the client's mode."""

import asyncio

from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from harness import serve


async def connect(stack, style, at):
    if "url" in at:
        server = StreamableHttpTransport(at["url"], headers=at.get("headers"))
    else:
        server = StdioTransport(at["command"][0], at["command"][1:], env=at["env"])
    client = await stack.enter_async_context(Client(server, mode=style))

    async def call(tool, arguments, seconds):
        result = await client.call_tool(tool, arguments, timeout=seconds, raise_on_error=False)
        return result.content[0].text, result.is_error

    return call


asyncio.run(serve(connect))
