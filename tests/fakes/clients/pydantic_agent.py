"""Pydantic AI with its own timeouts: its agent and MCP toolset, with a scripted model."""

import asyncio

from fastmcp.client.transports import StdioTransport
from harness import serve
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel


async def run_agent(asked, model):
    async def scripted(messages, info):
        last = messages[-1].parts[-1]
        read = text_of(last)
        if read is None or await model.should_continue(read):
            return ModelResponse(parts=[ToolCallPart(asked["tool"], asked["arguments"])])
        return ModelResponse(parts=[TextPart("That is all.")])

    await Agent(FunctionModel(scripted), toolsets=[toolset(asked["at"])]).run("Create the note.")


def text_of(part):
    match part:
        case ToolReturnPart():
            return part.model_response_str()
        case RetryPromptPart():
            return part.model_response()
        case _:
            return None


def toolset(at):
    if "url" in at:
        return MCPToolset(at["url"], headers=at["headers"])
    program, *args = at["command"]
    return MCPToolset(StdioTransport(program, args, env=at["env"]))


asyncio.run(serve(None, run_agent))
