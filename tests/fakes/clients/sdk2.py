"""The Python SDK 2.x: `Client` in the mode of its style, or a bare `ClientSession`."""

import asyncio

from harness import serve
from mcp import Client, ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def connect(stack, style, at):
    server = await over_http(stack, at) if "url" in at else parameters(at)
    opened = (
        session(stack, server)
        if style == "session"
        else stack.enter_async_context(Client(server, mode=style))
    )
    client = await opened

    async def call(tool, arguments, seconds):
        result = await client.call_tool(tool, arguments, read_timeout_seconds=seconds)
        return result.content[0].text, result.is_error

    return call


def parameters(at):
    program, *args = at["command"]
    return StdioServerParameters(command=program, args=args, env=at["env"])


async def over_http(stack, at):
    client = await stack.enter_async_context(create_mcp_http_client(at.get("headers")))
    return streamable_http_client(at["url"], http_client=client)


async def session(stack, server):
    transport = stdio_client(server) if isinstance(server, StdioServerParameters) else server
    read, write = await stack.enter_async_context(transport)
    opened = await stack.enter_async_context(ClientSession(read, write))
    await opened.initialize()
    return opened


asyncio.run(serve(connect))
