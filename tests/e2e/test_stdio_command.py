"""`okayed stdio` when the gateway it joined stops and another replaces it."""

import asyncio
import os
from contextlib import AsyncExitStack

import pytest
from mcp import Client, StdioServerParameters

from hang import HANG
from process import OKAYED, SHOP, Person, Process, free_ports, gateway_process, sha256, token

SHIP = {"number": "1002", "status": "shipped"}


@pytest.fixture
def gateway(tmp_path):
    """A gateway that is not running yet: its config and its addresses."""
    agents, inbox = free_ports(2)
    config = tmp_path / "okayed.yaml"
    config.write_text(
        f"listen: 127.0.0.1:{agents}\nstore: sqlite:///{tmp_path}/okayed.db\ninbox: {{listen: '127.0.0.1:{inbox}'}}\n"
        f"servers: {{shop: {SHOP}}}\n"
        f"approvers: [{{name: alice, token_sha256: {sha256(token('alice'))}}}]\n"
        "policy: {default: require_approval, matrix: [{category: [Read], action: allow}]}\n"
    )
    config.chmod(0o600)
    return Process(config, agents, inbox)


def client(gateway, mode, *args):
    """A client that launches the command with a minimal environment."""
    env = {
        name: os.environ[name]
        for name in os.environ
        if name in {"PATH", "HOME", "PYTHONPATH", "OKAYED_AGENT_TOKEN"} or "COVERAGE" in name
    }
    args = ["stdio", "shop", *(args or ["-c", str(gateway.config)])]
    return Client(StdioServerParameters(command=OKAYED, args=args, env=env), mode=mode)


async def orders(client):
    return (await client.call_tool("list_orders", {})).content[0].text


async def shipped(client, alice):
    """Ship an order with Alice's approval; returns the agent's result."""
    agent = asyncio.ensure_future(client.call_tool("update_order", SHIP))
    held = await alice.waiting("1002")
    await alice.post(held["id"], "approve", digest=held["digest"])
    return (await agent).content[0].text


async def test_when_the_command_with_the_embedded_gateway_ends_another_takes_over_unnoticed(
    gateway,
):
    running, ending = asyncio.Event(), asyncio.Event()

    async def first():
        async with client(gateway, "legacy") as agent:
            assert "Ada" in await orders(agent)
            running.set()
            await ending.wait()

    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        ended = tasks.create_task(first())
        await running.wait()
        async with client(gateway, "legacy") as second, client(gateway, "auto") as third:
            assert "Ada" in await orders(second)
            assert "Ada" in await orders(third)
            ending.set()
            await ended
            assert all("Ada" in answer for answer in await asyncio.gather(orders(second), orders(third)))
            async with Person(gateway.inbox) as alice:
                assert "1002 is now shipped" in await shipped(second, alice)
                assert "1002 is now shipped" in await shipped(third, alice)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_with_a_held_call_does_not_notice_that_the_gateway_was_killed(gateway, mode):
    async with asyncio.timeout(HANG), AsyncExitStack() as stack:
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        agent = await stack.enter_async_context(client(gateway, mode))
        alice = await stack.enter_async_context(Person(gateway.inbox))
        asked = asyncio.ensure_future(agent.call_tool("update_order", SHIP))
        held = await alice.waiting("1002")
        await gateway.kill()
        await gateway.start()
        await alice.post(held["id"], "approve", digest=held["digest"])
        assert "1002 is now shipped" in (await asked).content[0].text
        assert [(one["id"], one["state"]) for one in await alice.calls()] == [(held["id"], "completed")]


async def test_a_gateway_that_comes_back_is_joined_instead_of_starting_another(gateway, tmp_path):
    async with asyncio.timeout(HANG), gateway_process(gateway.config, *ports(gateway)) as process:
        async with client(gateway, "legacy") as agent:
            assert "Ada" in await orders(agent)
            await process.stop()
            await process.start()
            assert "Ada" in await orders(agent)
            async with Person(gateway.inbox) as alice:
                assert "1002 is now shipped" in await shipped(agent, alice)
    assert process.process.returncode == 0


async def test_a_command_that_joins_a_gateway_needs_no_variables_of_its_config(gateway, monkeypatch):
    gateway.config.write_text(gateway.config.read_text() + 'store_key: "${STORE_KEY}"\n')
    monkeypatch.setenv("STORE_KEY", "0123456789abcdef0123456789abcdef")
    async with asyncio.timeout(HANG), gateway_process(gateway.config, *ports(gateway)):
        async with client(gateway, "legacy") as agent:
            assert "Ada" in await orders(agent)


async def test_a_command_with_an_address_needs_no_config_and_waits_for_the_gateway(gateway, monkeypatch):
    gateway.config.write_text(
        gateway.config.read_text() + f"agents: [{{name: ci, token_sha256: {sha256('ci-token')}}}]\n"
    )
    monkeypatch.setenv("OKAYED_AGENT_TOKEN", "ci-token\n")
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(gateway.start())
        async with client(gateway, "legacy", "--url", gateway.agents, "-c", "/no/such/file") as agent:
            assert "Ada" in await orders(agent)
        await starting
        await gateway.stop()


def ports(gateway):
    return (int(url.rpartition(":")[2]) for url in (gateway.agents, gateway.inbox))
