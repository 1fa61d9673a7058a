"""Connections of slow peers are closed, a full listener logs it, and other peers are served."""

import asyncio
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiohttp import web

from aiohttp_listener import open_listener
from gateway.fronts.agents_listener import open_agents_listener
from gateway.fronts.connection_limits import MIN_BODY_RATE, Connections, Deadlines, PeerTimer, Phase
from gateway.fronts.endpoint import Endpoint, ListenerPolicy
from gateway.upstreams.reply import Reply
from hang import HANG
from replacing import replace
from rows import each_row
from scripted_proxy import Agents, ScriptedProxy

#: Short deadlines, so that a test waits for the disconnection itself.
SHORT = Deadlines(first=0.1, head=0.1, body=0.1, idle=0.1, unread=0.1, tick=0.01)
LONG = Deadlines(tick=0.01)
CUT = "agents: closed connections of slow peers (%d since the start)"


class App:
    """An aiohttp application, as that of the inbox, whose answers take as long as a test says."""

    path = b"/"

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.go = asyncio.Event()
        self.app = web.Application()
        self.app.router.add_route("*", "/", self.echo)
        self.app.router.add_get("/stream{size}", self.stream)

    async def echo(self, request):
        return web.Response(body=await request.read() or b"hello")

    async def stream(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        await self.go.wait()
        await response.write(b"x" * int(request.match_info["size"]))
        return response

    def serve(self):
        return open_listener(self.app, "127.0.0.1:0", self.connections)

    @property
    def get(self):
        return b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % self.path

    @property
    def post_start(self):
        return b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" % self.path

    @property
    def post(self):
        return self.post_start + b"Content-Length: 4\r\n\r\n"

    def get_stream(self, size=1):
        return self.get.replace(b" / ", b" /stream%d " % size)


class Plain(App):
    """The agents' listener, for plain requests."""

    path = b"/mcp/notes"

    def __init__(self, connections):
        super().__init__(connections)
        self.proxy = ScriptedProxy()
        self.proxy.answer = self.answer

    def serve(self):
        endpoint = Endpoint(self.proxy, ListenerPolicy(agents=Agents, ready=self.go.wait))
        return open_agents_listener(endpoint, "127.0.0.1:0", self.connections)

    async def answer(self, exchange):
        if not exchange.server.startswith("stream"):
            return await self.proxy.echo(exchange)
        return Reply(status=200, chunks=self.chunks(int(exchange.server[6:])))

    async def chunks(self, size):
        await self.go.wait()
        yield b"x" * size

    def get_stream(self, size=1):
        return self.get.replace(b"/notes", b"/stream%d" % size)


class HandedOver(Plain):
    """The agents' listener, for requests that aiohttp serves."""

    path = b"/mcp/notes?odd"


@asynccontextmanager
async def run_page(kind, deadlines=LONG, most=100):
    page = kind(Connections("agents", most, deadlines))
    async with asyncio.timeout(HANG), page.serve() as at:
        page.host, _, page.port = at.partition(":")
        yield page


@pytest.fixture(params=[App, Plain, HandedOver])
def serving(request):
    """Serve a page; each test runs with each kind of server."""
    return partial(run_page, request.param)


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


async def test_incomplete_requests_are_closed_while_another_client_is_served(serving, caplog):
    async with serving(replace(SHORT, first=HANG)) as page:
        slow = [await connect(page, page.post_start + b"X-Sl") for _ in range(50)]
        assert b"200 OK" in await all_of(page, page.get)
        assert {await reader.read() for reader, _ in slow} == {b""}
        for _, writer in slow:
            writer.close()
    assert len(caplog.records) == 1, "one line a minute"
    assert caplog.records[0].message == CUT % 1


@pytest.mark.parametrize(
    "sent", [b"", b"P", b"POST", b"POSTab"], ids=["nothing", "a byte", "a head", "half a body"]
)
async def test_a_peer_that_stalls_is_disconnected(serving, sent):
    async with serving(SHORT) as page:
        assert await all_of(page, sent.replace(b"POST", page.post)) == b""


async def test_a_body_that_turns_into_bad_http_is_disconnected(serving):
    async with serving(SHORT) as page:
        head = page.post_start + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        reader, writer = await connect(page, head)
        await reader.readuntil(b"100 Continue\r\n\r\n")
        writer.write(b"2\r\nab\r\nzz\r\n")
        assert await reader.read() == b""
        writer.close()


async def test_an_idle_connection_is_closed_after_its_answer(serving):
    async with serving(replace(SHORT, first=HANG)) as page:
        assert (await all_of(page, page.get)).endswith(b"hello")


async def test_the_time_for_a_slow_request_head_starts_at_its_first_byte(serving):
    async with serving(SHORT) as page:
        reader, writer = await connect(page, page.get[:-2])
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():
            writer.write(b"X: y\r\n")
            await asyncio.wait([ended], timeout=0.02)
        writer.close()


async def test_a_slow_answer_has_no_time_limit(serving):
    async with serving(SHORT) as page:
        reader, writer = await connect(page, page.get_stream())
        head = await reader.readuntil(b"\r\n\r\n")
        idle = await connect(page)
        assert await idle[0].read() == b"", "a whole deadline has passed"
        page.go.set()
        assert b"200 OK" in head
        assert b"x" in await reader.readuntil(b"0\r\n\r\n")
        for one in (writer, idle[1]):
            one.close()


async def test_requests_sent_at_once_are_answered_in_turn(serving):
    async with serving(replace(SHORT, first=HANG)) as page:
        answers = await all_of(page, page.get * 20 + page.post + b"body" + page.get)
    assert answers.count(b"HTTP/1.1 200 OK") == 22


@pytest.mark.parametrize("size", [1 << 24, 1 << 26])
async def test_a_peer_that_does_not_read_its_answer_is_disconnected(serving, size, caplog):
    async with serving(replace(LONG, unread=0.1)) as page:
        reader, writer = await connect(page, page.get_stream(size))
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


@each_row(
    ("seen", "overdue"),
    [
        ([(1000, 5)], False), ([(1000, 5), (1061, 5)], True), ([(1000, 5), (1061, 4), (1070, 4)], False),
        ([(1000, 5), (1061, 0), (1070, 5)], False), ([(1000, 0), (1061, 0)], False), ([(1000, 5), (1061, 6)], True),
    ],
)  # fmt: skip
def test_a_peer_is_cut_when_it_reads_nothing_for_a_minute(seen, overdue):
    """Each row has times, and how many bytes were unsent then; the connection opened at 0."""
    timer = PeerTimer(0)
    assert [timer.is_not_reading(unsent, Deadlines(), now) for now, unsent in seen][-1] == overdue


async def test_a_full_listener_refuses_and_logs_it_once_a_minute(serving, caplog):
    async with serving(most=2) as page:
        kept = [await connect(page, page.get) for _ in range(2)]
        for reader, _ in kept:
            await reader.readuntil(b"hello")
        for _ in range(3):
            assert (await all_of(page)).startswith(b"HTTP/1.1 503 ")
        for _, writer in kept:
            writer.close()
        while len(page.connections):
            await asyncio.sleep(0)
        assert b"200 OK" in await all_of(
            page, page.get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
    full = "agents: refused connections beyond the limit of 2 (1 since the start)"
    assert [record.message for record in caplog.records] == [full]


async def test_peers_are_not_blamed_for_a_stalled_process(serving):
    async with serving(Deadlines(tick=3600)) as page:
        reader, writer = await connect(page, page.get[:8])
        while not len(page.connections):
            await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        page.connections.check(now)
        page.connections.check(now + 7200)
        writer.write(page.get[8:])
        assert b"200 OK" in await reader.readuntil(b"hello")
        page.connections.check(now + 7201)
        assert await reader.read() == b"", "idle for two hours"
        writer.close()
