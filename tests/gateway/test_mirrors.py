"""Headers that mirror arguments: compared with the body, and made anew from it."""

import asyncio

import pytest

from gateways import META, MODERN, last_frame, running
from recorder import Recorder

TOOL = {
    "name": "create_note",
    "inputSchema": {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "count": {"type": "integer", "x-mcp-header": "Count"},
        },
    },
}
HEADERS = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "create_note"}


async def ask(gateway, arguments, **headers):
    meta = {**META, "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"name": "create_note", "arguments": arguments, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    async with await gateway.post(body, HEADERS | headers) as answer:
        return answer.status, last_frame(await answer.read())


def server():
    return Recorder(tools=[TOOL])


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"region": "eu"}, {}),
        ({"region": "eu"}, {"Mcp-Param-Region": "us"}),
        ({}, {"Mcp-Param-Region": "eu"}),
        ({"region": "ü"}, {"Mcp-Param-Region": "=?base64?!!?="}),
        ({"region": "eu", "count": 2}, {"Mcp-Param-Region": "eu", "Mcp-Param-Count": "3"}),
    ],
)
async def test_a_call_whose_headers_contradict_its_body_is_held_for_nobody(arguments, headers):
    async with running(recorder=server()) as gateway:
        status, frame = await ask(gateway, arguments, **headers)
        assert (status, frame["error"]["code"]) == (400, -32020)
        assert await gateway.gateway.store.select() == []


async def test_an_approved_call_carries_the_headers_that_its_arguments_make():
    async with running(recorder=server()) as gateway, asyncio.TaskGroup() as tasks:
        fitting = {"Mcp-Param-Region": "=?base64?w7w=?=", "Mcp-Param-Count": "2.0", "Mcp-Param-Other": "x"}
        agent = tasks.create_task(ask(gateway, {"region": "ü", "count": 2}, **fitting))
        [held] = await gateway.held()
        await gateway.review(held)
        assert (await agent)[0] == 200
        [sent] = gateway.recorder.calls
        mirrored = {name: value for name, value in sent.headers.items() if name.startswith("mcp-param-")}
        assert mirrored == {
            "mcp-param-region": "=?base64?w7w=?=",
            "mcp-param-count": "2",
            "mcp-param-other": "x",
        }


async def test_a_client_on_stdio_makes_none_and_they_are_made_for_it():
    async with running("default: allow", recorder=server()) as gateway:
        status, _ = await ask(gateway, {"region": "eu"}, **{"Holdpoint-Front": "stdio"})
        assert status == 200
        [sent] = gateway.recorder.calls
        assert sent.headers["mcp-param-region"] == "eu"
        assert "holdpoint-front" not in sent.headers


async def test_in_the_handshake_revisions_no_header_mirrors_an_argument():
    async with running("default: allow", recorder=server()) as gateway:
        await gateway.call("create_note", {"region": "eu"})
        [sent] = gateway.recorder.calls
        assert not [name for name in sent.headers if name.startswith("mcp-param-")]
