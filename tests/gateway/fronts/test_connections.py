"""Connections of slow peers are closed, a full listener logs it, and other peers are served."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from gateway.fronts.connections import MIN_BODY_RATE, Connections, Deadlines, Phase
from gateway.fronts.listener import open_listener
from hang import HANG
from rows import each_row

#: Short deadlines, so that a test waits for the disconnection itself.
SHORT = Deadlines(first=0.1, head=0.1, body=0.1, idle=0.1, unread=0.1, tick=0.01)
LONG = Deadlines(tick=0.01)
CUT = "agents: closed connections of slow peers (%d since the start)"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


class Page:
    """An application whose answers take as long as a test says."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.go = asyncio.Event()
        self.app = web.Application()
        self.app.router.add_route("*", "/", self.echo)
        self.app.router.add_get("/stream", self.stream)

    async def echo(self, request):
        return web.Response(body=await request.read() or b"hello")

    async def stream(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        await self.go.wait()
        await response.write(b"x" * int(request.query.get("size", 1)))
        return response


@asynccontextmanager
async def serving(deadlines=LONG, most=100):
    page = Page(Connections("agents", most, deadlines))
    async with asyncio.timeout(HANG), open_listener(page.app, "127.0.0.1:0", page.connections) as at:
        page.host, _, page.port = at.partition(":")
        yield page


async def connect(page, *parts):
    reader, writer = await asyncio.open_connection(page.host, int(page.port))
    for part in parts:
        writer.write(part)
    return reader, writer


async def all_of(page, *parts):
    """Send raw bytes, and return all bytes received until the gateway closes the connection."""
    reader, writer = await connect(page, *parts)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_incomplete_requests_are_closed_while_another_client_is_served(caplog):
    async with serving(SHORT) as page:
        slow = [await connect(page, b"POST / HTTP/1.1\r\nHost: x\r\nX-Sl") for _ in range(50)]
        assert b"200 OK" in await all_of(page, GET)
        assert {await reader.read() for reader, _ in slow} == {b""}
        for _, writer in slow:
            writer.close()
    assert len(caplog.records) == 1, "one line a minute"
    assert caplog.records[0].message == CUT % 1


@pytest.mark.parametrize(
    "sent", [b"", b"P", POST, POST + b"ab"], ids=["nothing", "a byte", "a head", "half a body"]
)
async def test_a_peer_that_stalls_is_disconnected(sent):
    async with serving(SHORT) as page:
        assert await all_of(page, sent) == b""


async def test_a_body_that_turns_into_bad_http_is_disconnected():
    async with serving(SHORT) as page:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        reader, writer = await connect(page, head)
        await reader.readuntil(b"100 Continue\r\n\r\n")
        writer.write(b"2\r\nab\r\nzz\r\n")
        assert await reader.read() == b""
        writer.close()


async def test_an_idle_connection_is_closed_after_its_answer():
    async with serving(SHORT) as page:
        assert (await all_of(page, GET)).endswith(b"hello")


async def test_the_time_for_a_slow_request_head_starts_at_its_first_byte():
    async with serving(SHORT) as page:
        reader, writer = await connect(page, b"GET / HTTP/1.1\r\n")
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():
            writer.write(b"X: y\r\n")
            await asyncio.wait([ended], timeout=0.02)
        writer.close()


async def test_a_slow_answer_has_no_time_limit():
    async with serving(SHORT) as page:
        reader, writer = await connect(page, GET.replace(b"/ ", b"/stream "))
        head = await reader.readuntil(b"\r\n\r\n")
        idle = await connect(page)
        assert await idle[0].read() == b"", "a whole deadline has passed"
        page.go.set()
        assert b"200 OK" in head
        assert b"x" in await reader.readuntil(b"0\r\n\r\n")
        for one in (writer, idle[1]):
            one.close()


async def test_requests_sent_at_once_are_answered_in_turn():
    async with serving(SHORT) as page:
        answers = await all_of(page, GET * 20 + POST + b"body" + GET)
    assert answers.count(b"HTTP/1.1 200 OK") == 22


@pytest.mark.parametrize("size", [1 << 24, 1 << 26])
async def test_a_peer_that_does_not_read_its_answer_is_disconnected(size, caplog):
    async with serving(replace(LONG, unread=0.1)) as page:
        reader, writer = await connect(page, GET.replace(b"/ ", b"/stream?size=%d " % size))
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        page.go.set()
        while len(page.connections):
            await asyncio.sleep(page.connections.deadlines.tick)
        writer.close()
    assert [record.message for record in caplog.records] == [CUT % 1]


@each_row(
    ("phase", "received", "allowed"),
    [
        (Phase.NEW, 0, 10), (Phase.HEAD, 0, 10), (Phase.BODY, 0, 60), (Phase.BODY, MIN_BODY_RATE * 5, 65),
        (Phase.ANSWER, 0, None), (Phase.IDLE, 0, 75),
    ],
)  # fmt: skip
def test_each_phase_has_its_time_limit(phase, received, allowed):
    assert Deadlines().limit_for(phase, received) == allowed


async def test_a_full_listener_refuses_and_logs_it_once_a_minute(caplog):
    async with serving(most=2) as page:
        kept = [await connect(page, GET) for _ in range(2)]
        for reader, _ in kept:
            await reader.readuntil(b"hello")
        for _ in range(3):
            assert (await all_of(page)).startswith(b"HTTP/1.1 503 ")
        for _, writer in kept:
            writer.close()
        while len(page.connections):
            await asyncio.sleep(0)
        assert b"200 OK" in await all_of(page, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    full = "agents: refused connections beyond the limit of 2 (1 since the start)"
    assert [record.message for record in caplog.records] == [full]


async def test_peers_are_not_blamed_for_a_stalled_process():
    async with serving(Deadlines(tick=3600)) as page:
        reader, writer = await connect(page, b"GET /")
        while not len(page.connections):
            await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        page.connections.check(now)
        page.connections.check(now + 7200)
        writer.write(b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"hello")
        page.connections.check(now + 7201)
        assert await reader.read() == b"", "idle for two hours"
        writer.close()
