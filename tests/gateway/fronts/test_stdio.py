"""The stdio front, with a real upstream behind it."""

import asyncio
import json
import logging
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from approvals.errors import StoreError
from gateway.errors import ConnectionLostError, NotSentError
from gateway.fronts.stdio import MAX_LINE, StdioFront
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http import HttpUpstream
from gateway.upstreams.reply import Reply, frame_reply
from gateway.upstreams.stdio import ServerCommand, StdioUpstream
from gateway.wire import sse
from gateways import running
from hang import HANG

CHILD = str(Path(__file__).parents[2] / "fakes" / "stdio_server.py")


class Terminal:
    """A client on a pair of streams."""

    def __init__(self, exchange, **more):
        self.reader = asyncio.StreamReader(limit=MAX_LINE)
        self.lines = asyncio.Queue()
        self.front = StdioFront(self.reader, self._take, exchange, **more)

    async def _take(self, frame):
        await self.lines.put(json.loads(frame))

    def type(self, *frames):
        for frame in frames:
            self.reader.feed_data((frame if isinstance(frame, bytes) else json.dumps(frame).encode()) + b"\n")

    async def read(self):
        async with asyncio.timeout(HANG):
            return await self.lines.get()


@pytest.fixture
async def upstream():
    upstream = StdioUpstream(ServerCommand(name="child", argv=[sys.executable, CHILD]), lambda: 0.0)
    yield upstream
    await upstream.close()


@pytest.fixture
async def terminal(upstream):
    terminal = Terminal(upstream.send)
    running = asyncio.ensure_future(terminal.front.run())
    yield terminal
    terminal.reader.feed_eof()
    async with asyncio.timeout(HANG):
        await running


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def calling(tool, id=1, **params):
    return {
        "jsonrpc": "2.0",
        "id": id,
        "method": "tools/call",
        "params": {"name": tool, "arguments": {}, **params},
    }


async def test_a_session_is_opened_used_and_closed(terminal, upstream):
    terminal.type(INITIALIZE, INITIALIZED, calling("echo", "a"))
    assert (await terminal.read())["id"] == 0
    assert (await terminal.read())["id"] == "a"
    assert len(upstream.sessions) == 1


async def test_the_session_ends_when_stdin_ends(upstream):
    terminal = Terminal(upstream.send)
    terminal.type(INITIALIZE, INITIALIZED)
    terminal.reader.feed_eof()
    await terminal.front.run()
    assert upstream.sessions == {}


async def test_the_servers_own_messages_are_relayed(terminal):
    terminal.type(INITIALIZE, INITIALIZED, calling("announce"))
    await terminal.read()
    told = [await terminal.read(), await terminal.read()]
    assert {frame.get("method") for frame in told} == {None, "notifications/tools/list_changed"}


async def test_a_stream_is_written_frame_by_frame(terminal):
    terminal.type(INITIALIZE, INITIALIZED, calling("progress", _meta={"progressToken": 5}))
    await terminal.read()
    frames = [await terminal.read() for _ in range(3)]
    assert [frame.get("method") for frame in frames] == ["notifications/progress"] * 2 + [None]


async def test_a_servers_request_is_answered_on_stdin(terminal):
    terminal.type(INITIALIZE, INITIALIZED, calling("ask"))
    await terminal.read()
    assert (await terminal.read())["method"] == "roots/list"
    terminal.type({"jsonrpc": "2.0", "id": "s1", "result": {"roots": []}})
    assert "you said" in str(await terminal.read())


async def test_requests_do_not_wait_for_each_other():
    second = asyncio.Event()

    async def exchange(verb, body, headers):
        number = json.loads(body)["id"]
        if number == 1:
            await second.wait()
        second.set()
        return frame_reply(json.dumps({"jsonrpc": "2.0", "id": number, "result": {}}).encode())

    terminal = Terminal(exchange)
    terminal.type(calling("a", 1), calling("b", 2))
    terminal.reader.feed_eof()
    await terminal.front.run()
    assert [terminal.lines.get_nowait()["id"] for _ in range(2)] == [2, 1]


async def test_an_answer_is_delivered_when_it_is_written_to_the_client():
    order = []

    async def exchange(verb, body, headers):
        async def delivered():
            order.append("delivered")

        return replace(frame_reply(b'{"jsonrpc":"2.0","id":1,"result":{}}'), delivered=delivered)

    class Slow(Terminal):
        async def _take(self, frame):
            order.append("written")

    terminal = Slow(exchange)
    terminal.type(calling("a"))
    terminal.reader.feed_eof()
    await terminal.front.run()
    assert order == ["written", "delivered"]


def joined(gateway):
    return HttpUpstream(gateway.url, FixedCredentials({}), gateway.pool).send


async def test_a_held_call_does_not_run_after_its_client_closed_stdin():
    async with running() as gateway:
        terminal = Terminal(joined(gateway), grace=0)
        terminal.type(calling("create_note"))
        front = asyncio.ensure_future(terminal.front.run())
        [held] = await gateway.held()
        terminal.reader.feed_eof()
        async with asyncio.timeout(HANG):
            await front
            while gateway.gateway.service.presence.clients:
                await asyncio.sleep(0)
        await gateway.review(held)
        assert (gateway.ran(), terminal.lines.empty()) == ([], True)
        again = Terminal(joined(gateway))
        again.type(calling("create_note"))
        again.reader.feed_eof()
        await again.front.run()
        assert (again.lines.get_nowait()["id"], len(gateway.ran())) == (1, 1)


async def test_a_session_already_lost_at_the_end_is_not_an_error(upstream):
    terminal = Terminal(upstream.send)
    terminal.type(INITIALIZE, INITIALIZED, calling("crash"))
    terminal.reader.feed_eof()
    await terminal.front.run()
    assert [terminal.lines.get_nowait()["id"] for _ in range(2)] == [0, 1]


async def test_a_line_that_is_not_a_frame_gets_an_error(terminal):
    terminal.type(
        b"nonsense", b"", b"   ", b'{"jsonrpc":"2.0","id":null,"method":"ping"}', b'{"a":1} {"b":2}'
    )
    assert [(await terminal.read())["error"]["code"] for _ in range(3)] == [-32700, -32600, -32700]


async def test_a_line_that_is_too_long_is_refused_and_the_next_is_served(terminal):
    terminal.type(b"x" * (2 * MAX_LINE), INITIALIZE)
    assert "longer" in (await terminal.read())["error"]["message"]
    assert (await terminal.read())["id"] == 0


async def test_a_line_without_an_end_is_not_a_frame(upstream):
    terminal = Terminal(upstream.send)
    terminal.reader.feed_data(json.dumps(INITIALIZE).encode())
    terminal.reader.feed_eof()
    await terminal.front.run()
    assert terminal.lines.empty()
    longer = Terminal(upstream.send)
    longer.reader.feed_data(b"x" * (2 * MAX_LINE))
    longer.reader.feed_eof()
    await longer.front.run()


async def test_a_fault_is_an_error_for_requests_only():
    async def broken(verb, body, headers):
        raise NotSentError

    terminal = Terminal(broken)
    terminal.type(calling("echo", 7), INITIALIZED)
    terminal.reader.feed_eof()
    await terminal.front.run()
    told = terminal.lines.get_nowait()
    assert (told["id"], told["error"]["code"]) == (7, -32603)
    assert terminal.lines.empty()


async def test_a_store_failure_in_an_answer_does_not_end_the_front():
    async def chunks():
        yield sse.build_comment("waiting for approval")
        raise StoreError("The disk is full.")

    async def exchange(verb, body, headers):
        return Reply(status=200, headers=sse.HEADERS, chunks=chunks())

    terminal = Terminal(exchange)
    terminal.type(calling("echo", 7), calling("echo", 8))
    terminal.reader.feed_eof()
    await terminal.front.run()
    told = [terminal.lines.get_nowait() for _ in range(2)]
    assert [(one["id"], one["error"]["message"]) for one in told] == [
        (7, "The disk is full."), (8, "The disk is full."),
    ]  # fmt: skip


async def test_a_server_without_its_own_stream_is_accepted():
    async def exchange(verb, body, headers):
        if verb == "GET":
            refusals.append(1)
            if len(refusals) == 1:
                return Reply(status=405)
            raise NotSentError
        return Reply(status=202, headers={"Mcp-Session-Id": "s"})

    for _ in range(2):
        refusals = [1] if _ else []
        terminal = Terminal(exchange)
        terminal.type(INITIALIZE, INITIALIZED)
        terminal.reader.feed_eof()
        await terminal.front.run()


@pytest.mark.parametrize("fault", [NotSentError, StoreError])
async def test_a_failure_to_listen_does_not_affect_requests(fault):
    refused = asyncio.Event()

    async def exchange(verb, body, headers):
        if verb == "GET":
            refused.set()
            raise fault
        if verb == "DELETE" or b'"id"' not in body:
            return Reply(status=202)
        answer = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": {}}
        return frame_reply(json.dumps(answer).encode(), headers={"Mcp-Session-Id": "s"})

    terminal = Terminal(exchange)
    terminal.type(INITIALIZE, INITIALIZED)
    front = asyncio.ensure_future(terminal.front.run())
    async with asyncio.timeout(HANG):
        await refused.wait()
    terminal.type(calling("echo", 7))
    terminal.reader.feed_eof()
    await front
    assert [terminal.lines.get_nowait()["id"] for _ in range(2)] == [0, 7]


async def test_a_servers_broken_stream_is_reopened_with_the_next_answer():
    async def broken():
        yield sse.build_event(b'{"method":"notifications/message","params":{"n":1}}')
        raise ConnectionLostError

    async def whole():
        yield sse.build_event(b'{"method":"notifications/message","params":{"n":2}}')
        await asyncio.Event().wait()

    async def exchange(verb, body, headers):
        if verb == "GET":
            return Reply(status=200, headers=sse.HEADERS, chunks=streams.pop(0)())
        if b'"id"' not in body:
            return Reply(status=202)
        answer = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": {}}
        return frame_reply(json.dumps(answer).encode(), headers={"Mcp-Session-Id": "s"})

    streams = [broken, whole]
    terminal = Terminal(exchange)
    front = asyncio.ensure_future(terminal.front.run())
    terminal.type(INITIALIZE, INITIALIZED)
    assert [(await terminal.read()).get("params") for _ in range(2)] == [None, {"n": 1}]
    terminal.type(calling("echo", 7))
    told = [await terminal.read() for _ in range(2)]
    assert {"n": 2} in [one.get("params") for one in told]
    terminal.reader.feed_eof()
    await front


async def test_the_front_ends_even_if_closing_the_session_gets_no_answer():
    async def exchange(verb, body, headers):
        if verb == "DELETE":
            await asyncio.Event().wait()
        return Reply(status=202, headers={"Mcp-Session-Id": "s"})

    terminal = Terminal(exchange, grace=0.1)
    terminal.type(INITIALIZE)
    terminal.reader.feed_eof()
    async with asyncio.timeout(HANG):
        await terminal.front.run()


async def test_a_2026_frame_gets_the_headers_for_its_body():
    seen = []

    async def exchange(verb, body, headers):
        seen.append(dict(headers))
        return Reply(status=202)

    terminal = Terminal(exchange)
    terminal.type(calling("echo", _meta={"io.modelcontextprotocol/protocolVersion": "2026-07-28"}))
    terminal.reader.feed_eof()
    await terminal.front.run()
    assert seen == [
        {"okayed-front": "stdio"}
        | {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
    ]


MODERN = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}


def taking_back(request_id):
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}


async def test_a_request_cancelled_by_a_2026_client_is_not_answered(caplog):
    caplog.set_level(logging.INFO, "okayed.servers")
    upstream = StdioUpstream(
        ServerCommand(name="child", argv=[sys.executable, CHILD, "--modern"]), lambda: 0.0
    )
    terminal = Terminal(upstream.send)
    running = asyncio.ensure_future(terminal.front.run())
    terminal.type(calling("wait", "mine", **MODERN))
    async with asyncio.timeout(HANG):
        while upstream.shared is None or not upstream.shared.pending:
            await asyncio.sleep(0)
        terminal.type(taking_back("mine"))
        while "told notifications/cancelled True" not in caplog.text:
            await asyncio.sleep(0)
    terminal.type(calling("echo", "next", **MODERN))
    assert (await terminal.read())["id"] == "next"
    terminal.reader.feed_eof()
    await running
    await upstream.close()


async def test_2026_clients_with_the_same_id_cancel_only_their_own_request():
    asked, released = [], asyncio.Event()

    async def exchange(verb, body, headers):
        asked.append(json.loads(body)["method"])
        await released.wait()
        return frame_reply(b'{"jsonrpc":"2.0","id":1,"result":{}}')

    tired, patient = Terminal(exchange), Terminal(exchange)
    running = [asyncio.ensure_future(terminal.front.run()) for terminal in (tired, patient)]
    for terminal in (tired, patient):
        terminal.type(calling("echo", 1, **MODERN))
    async with asyncio.timeout(HANG):
        while len(asked) < 2:
            await asyncio.sleep(0)
        tired.type(taking_back(1))
        tired.reader.feed_eof()
        await running[0]
        released.set()
        assert (await patient.read())["id"] == 1
        patient.reader.feed_eof()
        await running[1]
    assert tired.lines.empty()
    assert asked == ["tools/call", "tools/call"]


async def test_a_held_call_cancelled_while_the_gateway_is_away_is_not_requested_again():
    asked, back = [], asyncio.Event()

    async def chunks():
        raise ConnectionLostError
        yield b""

    async def exchange(verb, body, headers):
        asked.append(headers.get("okayed-hold"))
        if len(asked) == 1:
            return Reply(status=200, headers={**sse.HEADERS, "Okayed-Hold": "hold_1"}, chunks=chunks())
        await back.wait()
        raise NotSentError

    terminal = Terminal(exchange)
    running = asyncio.ensure_future(terminal.front.run())
    terminal.type(calling("create_note", 1))
    async with asyncio.timeout(HANG):
        while len(asked) < 2:
            await asyncio.sleep(0)
        terminal.type(taking_back(1))
        terminal.reader.feed_eof()
        await running
    assert (asked, terminal.lines.empty()) == ([None, "hold_1"], True)


async def test_a_failed_exchange_ends_only_its_request():
    async def exchange(_verb, body, _headers):
        if b"bad" in body:
            raise ValueError("a header that cannot be written")
        return frame_reply(b'{"jsonrpc":"2.0","id":2,"result":{}}')

    terminal = Terminal(exchange)
    running = asyncio.ensure_future(terminal.front.run())
    terminal.type(calling("bad", id=1))
    assert "The gateway failed while handling this request" in (await terminal.read())["error"]["message"]
    terminal.type(calling("good", id=2))
    assert (await terminal.read())["result"] == {}
    terminal.reader.feed_eof()
    await running
