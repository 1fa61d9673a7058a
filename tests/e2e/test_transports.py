"""Every pair of front and server, in both eras: each feature of the protocol crosses the gateway, with and without a hold.

A server with every feature, over HTTP and as a child process; the SDK's client, over HTTP and through `okayed stdio`.
The gateway holds every tool call, and a robot approves it.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import mcp_types as types
import pytest
import pytest_asyncio
from mcp import Client, StdioServerParameters

from conformance import SERVER, approve_all, everything
from hang import HANG
from process import OKAYED, Person, free_ports, gateway_process, sha256, token

pytestmark = pytest.mark.asyncio(loop_scope="module")
FRONTS = ("http", "stdio")
SERVERS = ("web", "child")
MODES = ("legacy", "2026-07-28")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    agents, inbox = free_ports(2)
    config = folder / "okayed.yaml"
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(everything())
        config.write_text(
            f"listen: 127.0.0.1:{agents}\nstore: sqlite:///{folder}/pairs.db\n"
            f"servers:\n  web: {{url: '{url}'}}\n  child: {{command: [{sys.executable}, {SERVER}, --stdio]}}\n"
            f"approvers: [{{name: robot, token_sha256: {sha256(token('robot'))}}}]\ninbox: {{listen: '127.0.0.1:{inbox}'}}\n"
            "policy: {default: require_approval, tools: {test_simple_text: {action: allow}}}\n"
        )
        config.chmod(0o600)
        process = await stack.enter_async_context(gateway_process(config, agents, inbox))
        person = await stack.enter_async_context(Person(process.inbox, "robot"))
        robot = asyncio.ensure_future(approve_all(person))
        yield process
        robot.cancel()
        with suppress(asyncio.CancelledError):
            await robot


async def sampled(context, params):
    return types.CreateMessageResult(
        role="assistant",
        content=types.TextContent(text=f"sampled: {params.messages[0].content.text}"),
        model="m",
    )


async def elicited(context, params):
    return types.ElicitResult(
        action="accept", content={"username": "ana", "email": "a@example.com", "name": "ana"}
    )


async def roots(context):
    return types.ListRootsResult(roots=[types.Root(uri="file:///srv/data")])


pairs = pytest.mark.parametrize(
    "pair",
    [(front, server, mode) for front in FRONTS for server in SERVERS for mode in MODES],
    ids="-".join,
)


@asynccontextmanager
async def connected(gateway, pair):
    front, server, mode = pair
    url = f"{gateway.agents}/mcp/{server}"
    command = StdioServerParameters(command=OKAYED, args=["stdio", server, "-c", str(gateway.config)])
    logged = []

    async def log(params):
        logged.append(params.data)

    made = Client(
        url if front == "http" else command, mode=mode, sampling_callback=sampled, elicitation_callback=elicited,
        list_roots_callback=roots, logging_callback=log, log_level="info" if mode != "legacy" else None,
        read_timeout_seconds=20,
    )  # fmt: skip
    made.logged, made.modern = logged, mode != "legacy"
    async with made:
        yield made


def text(result):
    return result.content[0].text


@pairs
async def test_every_feature_of_the_protocol_crosses_the_gateway(gateway, pair):
    async with connected(gateway, pair) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert "test_simple_text" in tools
        assert text(await client.call_tool("test_simple_text")).startswith("This is a simple text")
        assert text(await client.call_tool("greet", {"name": "Ana"})) == "Hello, Ana!"
        assert (await client.call_tool("test_error_handling")).is_error

        told = []

        async def progress(now, total, message):
            told.append((now, message))

        await client.call_tool("test_tool_with_progress", progress_callback=progress)
        ours = [message for _, message in told if message]
        theirs = [now for now, message in told if not message]
        assert ours
        assert ours[0].startswith("Waiting for approval hold_")
        # Progress must increase, so the server's first value, 0 of 100, is dropped: it is not above the value sent while waiting.
        assert theirs[-2:] == [50, 100]

        await client.call_tool("test_tool_with_logging")
        assert client.logged == ["Tool execution started", "Tool processing data", "Tool execution completed"]

        held = await client.list_resources()
        assert "test://static-text" in [str(one.uri) for one in held.resources]
        read = await client.read_resource("test://template/7/data")
        assert json.loads(read.contents[0].text)["id"] == "7"
        assert (await client.list_resource_templates()).resource_templates
        assert (await client.list_prompts()).prompts
        prompt = await client.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "b"})
        assert "arg1='a'" in prompt.messages[0].content.text
        ref = types.PromptReference(name="test_prompt_with_arguments")
        completed = await client.complete(ref, {"name": "arg1", "value": "par"})
        assert completed.completion.values == ["paris", "park", "party"]


@pairs
async def test_requests_from_the_server_to_the_client_are_answered(gateway, pair):
    async with connected(gateway, pair) as client:
        if client.modern:
            named = await client.call_tool("test_input_required_result_elicitation")
            assert text(named) == "Hello, ana!"
            assert (
                text(await client.call_tool("test_input_required_result_sampling"))
                == "sampled: What is the capital of France?"
            )
            assert "file:///srv/data" in text(await client.call_tool("test_input_required_result_list_roots"))
            assert (
                text(await client.call_tool("test_input_required_result_multiple_inputs"))
                == "All three came."
            )
        else:
            assert (
                text(await client.call_tool("test_sampling", {"prompt": "hi"})) == "LLM response: sampled: hi"
            )
            answered = await client.call_tool("test_elicitation", {"message": "Who are you?"})
            assert '"username": "ana"' in text(answered)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("server", SERVERS)
async def test_a_list_change_reaches_the_client(gateway, front, server):
    async with connected(gateway, (front, server, "2026-07-28")) as client:
        async with client.listen(tools_list_changed=True) as changes:
            await client.call_tool("test_trigger_tool_change")
            async with asyncio.timeout(HANG):
                assert type(await anext(aiter(changes))).__name__ == "ToolsListChanged"
