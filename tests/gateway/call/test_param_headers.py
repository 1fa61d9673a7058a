"""Mcp-Param headers: checked against the body, and rebuilt from it."""

import asyncio

import pytest

from gateways import META, MODERN, last_frame, running
from recording_server import RecordingServer

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
    return RecordingServer(tools=[TOOL])


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
async def test_a_call_whose_headers_contradict_its_body_is_not_held(arguments, headers):
    async with running(recorder=server()) as gateway:
        status, frame = await ask(gateway, arguments, **headers)
        assert (status, frame["error"]["code"]) == (400, -32020)
        assert (await gateway.gateway.store.select()).items == []


async def test_an_approved_call_has_the_headers_for_its_arguments():
    async with running(recorder=server()) as gateway, asyncio.TaskGroup() as tasks:
        fitting = {"Mcp-Param-Region": "=?base64?w7w=?=", "Mcp-Param-Count": "2.0", "Mcp-Param-Other": "x"}
        agent = tasks.create_task(ask(gateway, {"region": "ü", "count": 2}, **fitting))
        [held] = await gateway.held()
        await gateway.review(held)
        assert (await agent)[0] == 200
        [sent] = gateway.recorder.calls
        mirrored = {name: value for name, value in sent.headers.items() if name.startswith("mcp-param-")}
        assert mirrored == {"mcp-param-region": "=?base64?w7w=?=", "mcp-param-count": "2"}


async def test_a_task_that_runs_without_its_client_has_them_too():
    declared = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    async with running(recorder=server()) as gateway:
        params = {"name": "create_note", "arguments": {"region": "eu"}}
        headers = {"Mcp-Param-Region": "eu", "Mcp-Param-Other": "x"}
        await gateway.ask("tools/call", params, declares=declared, headers=headers)
        [held] = await gateway.held()
        await gateway.review(held)
        [sent] = await gateway.recorder.called()
        mirrored = {name: value for name, value in sent.headers.items() if name.startswith("mcp-param-")}
        assert mirrored == {"mcp-param-region": "eu"}


async def test_headers_are_built_for_a_client_on_stdio():
    async with running("default: allow", recorder=server()) as gateway:
        status, _ = await ask(gateway, {"region": "eu"}, **{"Okayed-Front": "stdio"})
        assert status == 200
        [sent] = gateway.recorder.calls
        assert sent.headers["mcp-param-region"] == "eu"
        assert "okayed-front" not in sent.headers


CONTRADICTIONS = {"Mcp-Name": "delete_note", "Mcp-Method": "tools/list", "Mcp-Param-Region": "us"}


@pytest.mark.parametrize("policy", ["default: allow", "default: require_approval"])
async def test_handshake_revisions_have_no_param_headers(policy):
    async with running(policy, recorder=server()) as gateway, asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.call("create_note", {"region": "eu"}, headers=CONTRADICTIONS))
        if policy == "default: require_approval":
            [held] = await gateway.held()
            await gateway.review(held)
        [sent] = await gateway.recorder.called()
        assert not [name for name in sent.headers if name.startswith("mcp-")]


async def test_only_tool_calls_carry_param_headers():
    async with running(recorder=server()) as gateway:
        body = {"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": {"name": "p"}}
        async with await gateway.post(body, CONTRADICTIONS) as answer:
            await answer.read()
        [sent] = [one for one in gateway.recorder.received if one.frame.get("method") == "prompts/get"]
        assert not [name for name in sent.headers if name.startswith("mcp-")]
