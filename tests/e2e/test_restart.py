"""The gateway is killed and restarted: its clients continue on their connections and sessions."""

import asyncio
from contextlib import AsyncExitStack

import aiohttp
import pytest
from mcp import Client, MCPError

from hang import HANG
from process import SHOP, Person, Process, free_ports, sha256, token
from recording_server import RecordingServer

SHIP = {"number": "1002", "status": "shipped"}


def gateway(tmp_path, server):
    agents, inbox = free_ports(2)
    config = tmp_path / "okayed.yaml"
    config.write_text(
        f"listen: 127.0.0.1:{agents}\nstore: sqlite:///{tmp_path}/okayed.db\ninbox: {{listen: '127.0.0.1:{inbox}'}}\n"
        f"servers: {{shop: {server}}}\napprovers: [{{name: alice, token_sha256: {sha256(token('alice'))}}}]\n"
        "policy: {default: require_approval, matrix: [{category: [Read], action: allow}]}\n"
    )
    config.chmod(0o600)
    return Process(config, agents, inbox)


@pytest.fixture
async def shop(tmp_path):
    process = gateway(tmp_path, SHOP)
    await process.start()
    yield process
    await process.stop()


async def told(*_):
    """Accept progress; a client that asks for it gets its stream at once."""


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_idle_client_does_not_notice_a_kill_and_restart(shop, mode):
    async with asyncio.timeout(HANG), Client(f"{shop.agents}/mcp/shop", mode=mode) as agent:
        assert "Ada" in (await agent.call_tool("list_orders", {})).content[0].text
        await shop.kill()
        await shop.start()
        assert "Ada" in (await agent.call_tool("list_orders", {})).content[0].text


async def test_a_client_collects_its_held_call_after_a_kill_and_restart(shop):
    async with asyncio.timeout(HANG), Client(f"{shop.agents}/mcp/shop") as agent, Person(shop.inbox) as alice:
        asked = asyncio.ensure_future(agent.call_tool("update_order", SHIP, progress_callback=told))
        held = await alice.waiting("1002")
        await shop.kill()
        with pytest.raises(MCPError):
            await asked
        await shop.start()
        await alice.post(held["id"], "approve", digest=held["digest"])
        assert "1002 is now shipped" in (await agent.call_tool("update_order", SHIP)).content[0].text
        assert [(one["id"], one["state"]) for one in await alice.calls()] == [(held["id"], "completed")]


class Plain:
    """A minimal client of the handshake revisions."""

    def __init__(self, url, http):
        self._url = url
        self._http = http
        self._headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

    async def post(self, method, params, **more):
        frame = {"jsonrpc": "2.0", "method": method, "params": params, **more}
        async with self._http.post(self._url, json=frame, headers=self._headers) as answer:
            if method == "initialize":
                self._headers["Mcp-Session-Id"] = answer.headers["Mcp-Session-Id"]
            return (await answer.read()).decode()

    async def open(self):
        client = {"name": "plain", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        await self.post("initialize", params, id=0)
        await self.post("notifications/initialized", {})

    async def call(self, tool, arguments):
        return await self.post("tools/call", {"name": tool, "arguments": arguments}, id=1)


async def test_a_client_with_a_session_collects_its_held_call_in_the_same_session(shop):
    async with asyncio.timeout(HANG), aiohttp.ClientSession() as http, Person(shop.inbox) as alice:
        client = Plain(f"{shop.agents}/mcp/shop", http)
        await client.open()
        asked = asyncio.ensure_future(client.call("update_order", SHIP))
        held = await alice.waiting("1002")
        await shop.kill()
        with pytest.raises(aiohttp.ClientError):
            await asked
        await shop.start()
        await alice.post(held["id"], "approve", digest=held["digest"])
        assert "1002 is now shipped" in await client.call("update_order", SHIP)
        assert [(one["id"], one["state"]) for one in await alice.calls()] == [(held["id"], "completed")]


async def test_an_answer_that_a_kill_may_have_lost_is_given_again_without_a_new_approval(shop):
    async with asyncio.timeout(HANG), aiohttp.ClientSession() as http, Person(shop.inbox) as alice:
        client = Plain(f"{shop.agents}/mcp/shop", http)
        await client.open()
        asked = asyncio.ensure_future(client.call("update_order", SHIP))
        held = await alice.waiting("1002")
        await alice.post(held["id"], "approve", digest=held["digest"])
        assert "not run again" not in await asked
        await alice.until(lambda call: call["collected"])
        await shop.kill()
        await shop.start()
        again = await client.call("update_order", SHIP)
        assert "1002 is now shipped" in again
        assert "it was not run again." in again
        assert [(one["id"], one["state"]) for one in await alice.calls()] == [(held["id"], "completed")]


async def test_a_session_that_the_http_server_still_has_is_kept_after_a_restart(tmp_path):
    async with asyncio.timeout(HANG), RecordingServer(session="theirs", modern=False) as recorder:
        process = gateway(tmp_path, f"{{url: '{recorder.url}'}}")
        await process.start()
        try:
            async with aiohttp.ClientSession() as http:
                client = Plain(f"{process.agents}/mcp/shop", http)
                await client.open()
                await process.kill()
                await process.start()
                assert "ran get_note" in await client.call("get_note", {})
        finally:
            await process.stop()
    openings = [one.frame["id"] for one in recorder.received if one.frame.get("method") == "initialize"]
    assert [request_id for request_id in openings if request_id != "okayed"] == [0]
    assert recorder.calls[0].headers["mcp-session-id"] == "theirs"


async def test_a_call_approved_for_one_server_does_not_run_on_its_replacement(
    tmp_path,
):
    async with asyncio.timeout(HANG), RecordingServer() as one, RecordingServer() as other:
        process = gateway(tmp_path, f"{{url: '{one.url}'}}")
        await process.start()
        try:
            async with aiohttp.ClientSession() as http, Person(process.inbox) as alice:
                client = Plain(f"{process.agents}/mcp/shop", http)
                asked = asyncio.ensure_future(client.call("create_note", {"text": "hello"}))
                held = await alice.waiting("hello")
                assert f"at <code>{one.url}</code>" in await shown(alice, held)
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
                await alice.post(held["id"], "approve", digest=held["digest"])
                await process.kill()
                process.config.write_text(process.config.read_text().replace(one.url, other.url))
                await process.start()
                assert "address or credentials changed after the approval" in await client.call(
                    "create_note", {"text": "hello"}
                )
                assert (await alice.call(held["id"]))["state"] == "voided"
        finally:
            await process.stop()
        assert one.calls == other.calls == []


async def shown(person, held):
    await person.log_in()
    return await person.page(f"/calls/{held['id']}")


async def test_clients_that_resume_streams_get_their_answers_in_one_call_across_a_restart(shop):
    async with asyncio.timeout(120), AsyncExitStack() as stack:
        alice = await stack.enter_async_context(Person(shop.inbox))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        agents = [
            await stack.enter_async_context(Client(f"{shop.agents}/mcp/shop", mode="legacy"))
            for _ in range(8)
        ]
        other = Plain(f"{shop.agents}/mcp/shop", http)
        await other.open()
        # Half of them ask for progress, so their streams are open; the others have received nothing yet.
        asked = [
            asyncio.ensure_future(
                agent.call_tool(
                    "update_order",
                    {"number": "1002", "status": f"sent {number}"},
                    progress_callback=told if number % 2 else None,
                )
            )
            for number, agent in enumerate(agents)
        ]
        plain = asyncio.ensure_future(other.call("update_order", SHIP))
        while len(await alice.calls("pending")) < 9:
            await alice.waiting("shipped")
        assert await shop.stop() == 0
        assert "WAITING" in await plain, "a client that names no revision does not come back by itself"
        await shop.start()
        for held in await alice.calls("pending"):
            assert (await alice.post(held["id"], "approve", digest=held["digest"]))[0] == 200
        answers = [(await one).content[0].text for one in asked]
        assert [f"is now sent {number}" in answer for number, answer in enumerate(answers)] == [True] * 8
        assert "1002 is now shipped" in await other.call("update_order", SHIP)
