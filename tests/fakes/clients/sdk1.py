"""The Python SDK 1.x, and the LangChain adapters on it; its style says which."""

import asyncio
from datetime import timedelta

from harness import serve
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def connect(stack, style, at):
    return await {"session": session, "langchain": langchain}[style](stack, at)


async def session(stack, at):
    if "url" in at:
        client = await stack.enter_async_context(create_mcp_http_client(at.get("headers")))
        transport = streamable_http_client(at["url"], http_client=client)
    else:
        program, *args = at["command"]
        transport = stdio_client(StdioServerParameters(command=program, args=args, env=at["env"]))
    read, write, *_ = await stack.enter_async_context(transport)
    opened = await stack.enter_async_context(ClientSession(read, write))
    await opened.initialize()

    async def call(tool, arguments, seconds):
        timer = timedelta(seconds=seconds) if seconds else None
        result = await opened.call_tool(tool, arguments, read_timeout_seconds=timer)
        return result.content[0].text, result.isError

    return call


async def langchain(stack, at):
    from langchain_mcp_adapters.client import MultiServerMCPClient
    from langchain_mcp_adapters.tools import load_mcp_tools

    if "url" in at:
        connection = {"transport": "streamable_http", "url": at["url"], "headers": at.get("headers")}
    else:
        program, *args = at["command"]
        connection = {"transport": "stdio", "command": program, "args": args, "env": at["env"]}
    opened = await stack.enter_async_context(MultiServerMCPClient({"gateway": connection}).session("gateway"))
    tools = {tool.name: tool for tool in await load_mcp_tools(opened)}

    async def call(tool, arguments, seconds):
        # The adapters set this timeout only per session, where it would include the start of the command.
        opened._session_read_timeout_seconds = timedelta(seconds=seconds) if seconds else None
        message = await tools[tool].ainvoke({"type": "tool_call", "id": "1", "name": tool, "args": arguments})
        return message.text, message.status == "error"

    return call


asyncio.run(serve(connect))
