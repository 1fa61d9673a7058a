"""The OpenAI Agents SDK with its own timeouts: its runner, agent and MCP servers, with a scripted model."""

import asyncio
import itertools
import json

from agents import Agent, ModelResponse, Runner, Usage, set_tracing_disabled
from agents.mcp import MCPServerStdio, MCPServerStreamableHttp
from agents.models.interface import Model
from harness import serve
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

set_tracing_disabled(True)


class ScriptedModel(Model):
    """Calls one tool until the harness's model is done."""

    def __init__(self, asked, model):
        self._call = {"name": asked["tool"], "arguments": json.dumps(asked["arguments"])}
        self._model = model
        self._numbers = itertools.count()

    async def get_response(self, system_instructions, input, *args, **kwargs):
        last = input[-1] if isinstance(input, list) else {}
        output = last.get("output") if last.get("type") == "function_call_output" else None
        should_continue = output is None or await self._model.should_continue(text_of(output))
        return ModelResponse(
            output=[self._asks() if should_continue else ends()], usage=Usage(), response_id=None
        )

    def stream_response(self, *args, **kwargs):
        raise NotImplementedError

    def _asks(self):
        number = f"call_{next(self._numbers)}"
        return ResponseFunctionToolCall(type="function_call", id=number, call_id=number, **self._call)


def ends():
    text = ResponseOutputText(type="output_text", text="That is all.", annotations=[])
    return ResponseOutputMessage(type="message", id="m", role="assistant", status="completed", content=[text])


def text_of(output):
    return output if isinstance(output, str) else "".join(part.get("text", "") for part in output)


async def run_agent(asked, model):
    async with server(asked["at"]) as opened:
        agent = Agent(name="agent", model=ScriptedModel(asked, model), mcp_servers=[opened])
        await Runner.run(agent, "Create the note.", max_turns=1000)


def server(at):
    if "url" in at:
        return MCPServerStreamableHttp(params={"url": at["url"], "headers": at["headers"]})
    program, *args = at["command"]
    return MCPServerStdio(params={"command": program, "args": args, "env": at["env"]})


asyncio.run(serve(None, run_agent))
