"""Limits on an agent's exchanges in progress, so that it cannot starve other agents."""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web

from gateway.upstreams.http1 import pool
from gateways import META, MODERN, RunningGateway, running, text
from gateways import call as tool_call
from hang import HANG
from recording_server import RecordingServer, result

TOKENS = {name: name * 16 for name in ("busy", "calm")}
AGENTS = "".join(
    f"  - {{name: {name}, token_sha256: {hashlib.sha256(token.encode()).hexdigest()}}}\n"
    for name, token in TOKENS.items()
)
FEW = f"limits: {{exchanges_per_agent: 2, streams_per_agent: 1}}\nagents:\n{AGENTS}"


class Hanging:
    """A server that answers no call until it is released, and counts its running calls."""

    def __init__(self) -> None:
        self.running_calls = 0
        self.let_go = asyncio.Event()
        self._changed = asyncio.Condition()

    async def answer(self, request, frame):
        await self._count(1)
        try:
            await self.let_go.wait()
        finally:
            await asyncio.shield(self._count(-1))
        return result(frame, {"resultType": "complete", "content": [{"type": "text", "text": "late"}]})

    async def stream(self, request, frame):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": open\n\n")
        await self._count(1)
        try:
            await self.let_go.wait()
        finally:
            await asyncio.shield(self._count(-1))
        return response

    async def _count(self, more):
        async with self._changed:
            self.running_calls += more
            self._changed.notify_all()

    async def wait_until_running(self, number):
        """Wait until exactly so many calls are running."""
        async with self._changed, asyncio.timeout(HANG):
            await self._changed.wait_for(lambda: self.running_calls == number)


def as_agent(name: str) -> dict:
    return {"Authorization": f"Bearer {TOKENS[name]}"}


@asynccontextmanager
async def hanging_gateway(more: str = FEW, **options):
    server = Hanging()
    recorder = RecordingServer(on_call=server.answer, on_get=server.stream, on_listen=server.stream)
    async with running(more=more, recorder=recorder, **options) as gateway, asyncio.timeout(HANG):
        try:
            yield gateway, server
        finally:
            server.let_go.set()


@asynccontextmanager
async def two_calls(gateway: RunningGateway, server: Hanging, name: str = "busy"):
    """Let an agent wait for two calls; both have ended afterwards."""
    async with asyncio.TaskGroup() as tasks:
        waiting = [
            tasks.create_task(gateway.call("get_note", {"n": n}, id=n, headers=as_agent(name)))
            for n in range(2)
        ]
        await server.wait_until_running(2)
        yield waiting


async def test_a_call_beyond_an_agents_share_is_refused_and_another_agents_call_runs():
    async with hanging_gateway() as (gateway, server):
        async with two_calls(gateway, server):
            over = await gateway.call("get_note", headers=as_agent("busy"))
            assert over["result"]["isError"] is True
            assert text(over) == (
                "Too many of your calls are running. NOT EXECUTED. Try again when one of them has finished."
            )
            other = asyncio.ensure_future(gateway.call("get_note", headers=as_agent("calm")))
            await server.wait_until_running(3)
            server.let_go.set()
            assert text(await other) == "late"
        assert text(await gateway.call("get_note", headers=as_agent("busy"))) == "late"
    assert len(gateway.ran()) == 4


async def test_a_request_beyond_the_share_gets_429_under_its_id():
    async with hanging_gateway() as (gateway, server), two_calls(gateway, server):
        body = {"jsonrpc": "2.0", "id": "p", "method": "prompts/list", "params": {}}
        async with await gateway.post(body, as_agent("busy")) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
            frame = await answer.json()
        assert (frame["id"], frame["error"]["code"]) == ("p", -32603)
        assert frame["error"]["message"].startswith(
            "Too many of your requests are running; nothing was sent."
        )
        assert [one.frame["method"] for one in gateway.recorder.received].count("prompts/list") == 0
        server.let_go.set()


async def test_messages_and_streams_pass_a_full_share_of_requests():
    """An answer to a server's question, and a cancellation, end requests; a stream carries their questions."""
    async with hanging_gateway() as (gateway, server), two_calls(gateway, server):
        for frame in (
            {"jsonrpc": "2.0", "id": 9, "result": {"action": "accept"}},
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 77}},
        ):
            async with await gateway.post(frame, as_agent("busy")) as answer:
                assert answer.status == 202
        async with gateway.http.get(gateway.url, headers=as_agent("busy")) as stream:
            assert stream.status == 200
            server.let_go.set()
            await stream.read()


async def test_streams_have_their_own_share():
    async with hanging_gateway() as (gateway, server):
        async with gateway.http.get(gateway.url, headers=as_agent("busy")) as first:
            assert first.status == 200
            async with gateway.http.get(gateway.url, headers=as_agent("busy")) as second:
                assert second.status == 429
            meta = {**META, "io.modelcontextprotocol/clientCapabilities": {}}
            listen = {
                "jsonrpc": "2.0", "id": 5, "method": "subscriptions/listen",
                "params": {"notifications": {"toolsListChanged": True}, "_meta": meta},
            }  # fmt: skip
            named = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen"}
            async with await gateway.post(listen, {**as_agent("busy"), **named}) as third:
                assert (third.status, (await third.json())["id"]) == (429, 5)
            calling = asyncio.ensure_future(gateway.call("get_note", headers=as_agent("busy")))
            await server.wait_until_running(2)
            server.let_go.set()
            assert text(await calling) == "late"
            await first.read()


async def client_hangs_up(gateway, server):
    """The client hangs up."""
    waiting = [
        asyncio.ensure_future(gateway.call("get_note", {"n": n}, id=n, headers=as_agent("busy")))
        for n in range(2)
    ]
    await server.wait_until_running(2)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(HANG):
        while gateway.gateway.proxy._exchange_limits._open:
            await asyncio.sleep(0)
    server.let_go.set()  # this server does not notice
    await server.wait_until_running(0)
    server.let_go.clear()


async def server_answers(gateway, server):
    """The server answers."""
    async with two_calls(gateway, server):
        server.let_go.set()
    server.let_go.clear()


async def server_hangs_up(gateway, server):
    """The server hangs up in the middle of its answer."""

    async def breaks(request, frame):
        request.transport.close()
        return web.Response()

    gateway.recorder.on_call, was = breaks, gateway.recorder.on_call
    for n in range(2):
        assert (
            "broke"
            in (await gateway.call("get_note", {"n": n}, headers=as_agent("busy")))["error"]["message"]
        )
    gateway.recorder.on_call = was


async def server_redirects(gateway, server):
    """The server redirects, and the gateway does not follow."""

    async def elsewhere(request, frame):
        return web.Response(status=307, headers={"Location": "/"})

    gateway.recorder.on_call, was = elsewhere, gateway.recorder.on_call
    for n in range(2):
        assert "error" in await gateway.call("get_note", {"n": n}, headers=as_agent("busy"))
    gateway.recorder.on_call = was


async def list_too_large(gateway, server):
    """The server sends a list that is larger than the gateway reads."""

    async def endless(request, frame):
        return web.Response(body=b"[" * (17 << 20), content_type="application/json")

    await gateway.gateway.refresh_tools()
    gateway.recorder.on_list = endless
    for n in range(2):
        async with await gateway.post(
            {"jsonrpc": "2.0", "id": n, "method": "tools/list", "params": {}}, as_agent("busy")
        ) as answer:
            assert "larger than the gateway accepts" in (await answer.json())["error"]["message"]
    gateway.recorder.on_list = None


async def resumed_list_too_large(gateway, server):
    """The server resumes a stream with a body that is not a stream, and too large."""

    async def endless(request, frame):
        return web.Response(body=b"[" * (17 << 20), content_type="application/json")

    gateway.recorder.on_get, was = endless, gateway.recorder.on_get
    async with gateway.http.get(gateway.url, headers={**as_agent("busy"), "Last-Event-ID": "7"}) as answer:
        assert "larger than the gateway accepts" in (await answer.json())["error"]["message"]
    gateway.recorder.on_get = was


@pytest.mark.parametrize(
    "end",
    [
        client_hangs_up,
        server_answers,
        server_hangs_up,
        server_redirects,
        list_too_large,
        resumed_list_too_large,
    ],
)
async def test_after_any_end_of_an_exchange_its_agent_may_begin_another(end):
    async with hanging_gateway() as (gateway, server):
        await end(gateway, server)
        async with two_calls(gateway, server):
            server.let_go.set()
        server.let_go.clear()
        async with gateway.http.get(gateway.url, headers=as_agent("busy")) as stream:
            assert stream.status == 200
            server.let_go.set()
            await stream.read()
        assert not gateway.gateway.proxy._exchange_limits._open


async def test_held_calls_do_not_count_against_the_share():
    async with hanging_gateway() as (gateway, server), asyncio.TaskGroup() as tasks:
        waiting = [
            tasks.create_task(gateway.call("create_note", {"n": n}, id=n, headers=as_agent("busy")))
            for n in range(3)
        ]
        held = await gateway.held(3)
        async with two_calls(gateway, server):
            for one in held:
                await gateway.review(one)
            await server.wait_until_running(5)
            server.let_go.set()
        assert [text(await one) for one in waiting] == ["late"] * 3


async def test_exchanges_beyond_the_share_are_recorded_once_a_minute():
    async with hanging_gateway() as (gateway, server), two_calls(gateway, server):
        for n in range(5):
            await gateway.call("get_note", {"n": n}, headers=as_agent("busy"))
        gateway.clock.now += 61
        await gateway.call("get_note", headers=as_agent("busy"))
        server.let_go.set()
        refused = [
            event for event in await gateway.gateway.store.events() if event.kind == "exchange.refused"
        ]
    assert [(event.agent, event.server) for event in refused] == [("busy", "notes")] * 2
    assert (await gateway.kinds()).count("call.allowed") == 2


# Connections.


@asynccontextmanager
async def two_servers(connections: int):
    """Two servers, `notes` and `calm`, with so many connections each; both hang."""
    server = Hanging()
    async with RecordingServer(on_call=server.answer, on_get=server.stream) as recorder:
        options = f"url: '{recorder.url}', connections: {connections}"
        async with running(server_options=options, second_server="calm") as gateway, asyncio.timeout(HANG):
            try:
                yield gateway, server
            finally:
                server.let_go.set()


async def test_a_server_without_free_connections_does_not_block_another():
    async with two_servers(connections=2) as (gateway, server), asyncio.TaskGroup() as tasks:
        for n in range(2):
            tasks.create_task(gateway.call("get_note", {"n": n}, id=n))
        await server.wait_until_running(2)
        gateway.url = gateway.url.replace("/notes", "/calm")
        tasks.create_task(gateway.call("get_note"))
        await server.wait_until_running(3)
        server.let_go.set()


async def test_streams_do_not_use_the_connections_for_requests():
    async with two_servers(connections=1) as (gateway, server), AsyncExitStack() as stack:
        for _ in range(3):
            stream = await stack.enter_async_context(gateway.http.get(gateway.url))
            assert stream.status == 200
        calling = asyncio.ensure_future(gateway.call("get_note"))
        await server.wait_until_running(4)
        server.let_go.set()
        assert text(await calling) == "late"


async def test_a_freed_connection_goes_to_a_waiting_request():
    async with two_servers(connections=1) as (gateway, server):
        calls = [asyncio.ensure_future(gateway.call("get_note", {"n": n}, id=n)) for n in range(3)]
        await server.wait_until_running(1)
        server.let_go.set()
        assert [text(one) for one in await asyncio.gather(*calls)] == ["late"] * 3


async def test_without_a_free_connection_nothing_is_sent_and_the_error_says_why(monkeypatch):
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 0.2)
    async with two_servers(connections=1) as (gateway, server):
        first = asyncio.ensure_future(gateway.call("get_note", {"n": 1}))
        await server.wait_until_running(1)
        over = await gateway.call("get_note", {"n": 2})
        assert over["error"]["message"].startswith("All connections to the server have been in use for 0 s;")
        held = asyncio.ensure_future(gateway.call("create_note"))
        await gateway.review((await gateway.held())[0])
        assert text(await held).startswith("All connections to the server have been in use")
        assert server.running_calls == 1
        server.let_go.set()
        assert text(await first) == "late"


LITTLE = f"limits: {{bodies_per_agent: 100KB}}\nagents:\n{AGENTS}"


class Halfway:
    """A body that stops in the middle until it may go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, body: bytes):
        half = len(body) // 2
        yield body[:half]
        self.reached.set()
        await self.go_on.wait()
        yield body[half:]


async def call_with_large_arguments(
    gateway: RunningGateway, name: str, halfway: Halfway | None = None
) -> tuple[int, bytes]:
    """Let an agent call a tool with 60 KB of arguments."""
    body = json.dumps(tool_call("get_note", {"text": "x" * 60_000})).encode()
    headers = {**as_agent(name), "Content-Type": "application/json", "Content-Length": str(len(body))}
    data = body if halfway is None else halfway(body)
    async with gateway.http.post(gateway.url, data=data, headers=headers) as answer:
        return answer.status, await answer.read()


async def test_large_bodies_of_one_agent_take_turns_and_another_agent_is_served():
    halfway = Halfway()
    async with running(more=LITTLE) as gateway, asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(call_with_large_arguments(gateway, "busy", halfway))
        await halfway.reached.wait()
        status, said = await call_with_large_arguments(gateway, "busy")
        assert (status, b"Too many of your large requests" in said) == (429, True)
        assert (await call_with_large_arguments(gateway, "calm"))[0] == 200
        halfway.go_on.set()
        assert (await first)[0] == 200
        assert (await call_with_large_arguments(gateway, "busy"))[0] == 200


async def test_an_agents_only_body_is_read_whatever_its_size():
    async with running(more=LITTLE.replace("100KB", "1KB")) as gateway:
        assert (await call_with_large_arguments(gateway, "busy"))[0] == 200
