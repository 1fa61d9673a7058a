"""Sessions whose server process ended are reopened with the client's initialize, without the client noticing."""

import asyncio
import json
import sys
from pathlib import Path

from gateway.errors import NotSentError
from gateways import call, running
from hang import HANG

CHILD = str(Path(__file__).parents[2] / "fakes" / "stdio_server.py")
SERVER = f"command: [{sys.executable}, {CHILD}]"
ALLOW = "default: allow"
OPENING = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}


async def opened(gateway):
    """Open a session as a client does; returns the header that names it."""
    async with await gateway.post(OPENING) as answer:
        headers = {
            "Mcp-Session-Id": answer.headers["Mcp-Session-Id"],
            "Mcp-Protocol-Version": "2025-11-25",
        }
    done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await gateway.post(done, headers)).status == 202
    return headers


async def crash(gateway, headers):
    assert "error" in await gateway.call("crash", headers=headers)


async def reopenings(gateway):
    return [kind for kind in await gateway.kinds() if kind == "session.reopened"]


async def test_after_a_crash_the_next_call_of_the_session_finds_a_new_process():
    async with running(ALLOW, server_options=SERVER) as gateway:
        session = await opened(gateway)
        await crash(gateway, session)
        answer = await gateway.call("echo", {"x": 1}, id="again", headers=session)
        assert (answer["id"], json.loads(answer["result"]["content"][0]["text"])["arguments"]) == (
            "again",
            {"x": 1},
        )
        assert await reopenings(gateway) == ["session.reopened"]
        assert "result" in await gateway.call("echo", headers=session)
        assert len(await reopenings(gateway)) == 1


async def test_one_of_many_exchanges_reopens_a_lost_session():
    async with running(ALLOW, server_options=SERVER) as gateway:
        session = await opened(gateway)
        await crash(gateway, session)
        answers = await asyncio.gather(
            *(gateway.call("echo", id=number, headers=session) for number in range(5))
        )
        assert [answer["id"] for answer in answers] == list(range(5))
        assert len(await reopenings(gateway)) == 1
        assert len(gateway.gateway.proxy.settings.upstreams["notes"].inner.sessions) == 1


async def test_a_session_stream_reopens_it_too_and_reads_the_new_process():
    async with running(ALLOW, server_options=SERVER) as gateway:
        session = await opened(gateway)
        await crash(gateway, session)
        async with gateway.http.get(gateway.url, headers=session) as stream:
            assert stream.status == 200
            await gateway.call("announce", headers=session)
            async with asyncio.timeout(HANG):
                while b"list_changed" not in await stream.content.readline():
                    pass
        assert len(await reopenings(gateway)) == 1


async def test_a_session_that_its_client_ended_is_not_reopened():
    async with running(ALLOW, server_options=SERVER) as gateway:
        session = await opened(gateway)
        async with gateway.http.delete(gateway.url, headers=session) as answer:
            assert answer.status == 200
        async with await gateway.post(call("echo"), session) as answer:
            assert answer.status == 404
        session = await opened(gateway)
        await crash(gateway, session)
        async with gateway.http.delete(gateway.url, headers=session) as answer:
            assert answer.status == 404
        async with await gateway.post(call("echo"), session) as answer:
            assert answer.status == 404
        assert await reopenings(gateway) == []


async def test_a_client_whose_session_cannot_be_reopened_gets_404():
    async with running(ALLOW, server_options=SERVER) as gateway:
        session = await opened(gateway)
        await crash(gateway, session)

        async def nothing():
            raise NotSentError

        gateway.gateway.proxy.settings.upstreams["notes"].inner._connect = nothing
        async with await gateway.post(call("echo"), session) as answer:
            assert answer.status == 404
        assert await reopenings(gateway) == []


async def test_a_held_call_is_sent_in_the_reopened_session():
    async with running("default: require_approval", server_options=SERVER) as gateway:
        session = await opened(gateway)
        [behind] = gateway.gateway.proxy.settings.upstreams["notes"].inner.sessions.values()
        await behind.connection.stop()
        agent = asyncio.ensure_future(gateway.call("echo", {"x": 1}, headers=session))
        [held] = await gateway.held()
        await gateway.review(held)
        assert '"x": 1' in (await agent)["result"]["content"][0]["text"]
