"""An aiohttp application that is built, in a thread, when its first connection arrives."""

import asyncio
import threading

import pytest
import uvloop
from aiohttp import web

from gateway.fronts.connection_limits import Connections
from gateway.fronts.late_application import LateApplication, open_late_listener
from hang import HANG

REQUEST = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


def build():
    async def echo(request):
        return web.Response(body=await request.read())

    app = web.Application()
    app.router.add_post("/echo", echo)
    return app


async def ask(port, request):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def ask_at_once(request):
    async with open_late_listener(build, "127.0.0.1:0", Connections("inbox", 9)) as address:
        port = int(address.rpartition(":")[2])
        first = await asyncio.gather(*(ask(port, request) for _ in range(3)))
        return [*first, await ask(port, request)]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("size", [5, 3 << 16])
def test_a_request_that_is_sent_at_once_is_answered_on_both_event_loops(loop, size):
    request = REQUEST.replace(b": 5", b": %d" % size).replace(b"hello", b"h" * size)
    with asyncio.Runner(loop_factory=loop) as runner:
        answers = runner.run(asyncio.wait_for(ask_at_once(request), HANG))
    assert [answer.endswith(b"\r\n\r\n" + b"h" * size) for answer in answers] == [True] * 4


class Builder:
    """Builds an application as soon as it may, and records the threads that asked for it."""

    def __init__(self):
        self.threads = []
        self.started, self.may_finish = threading.Event(), threading.Event()
        self.faults = []

    def __call__(self):
        self.threads.append(threading.current_thread())
        self.started.set()
        assert self.may_finish.wait(HANG)
        if self.faults:
            raise self.faults.pop()
        app = web.Application()
        app.router.add_get("/", self.page)
        return app

    async def page(self, _request):
        return web.Response(text="page")


async def read(at):
    """Return the response to a request; b"" if the connection is closed without one."""
    reader, writer = await asyncio.open_connection(*at.split(":"))
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    try:
        return (await reader.read())[-4:]
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_the_loop_goes_on_while_the_application_is_built_once_for_all_connections():
    build = Builder()
    async with open_late_listener(build, "127.0.0.1:0", Connections("test", 9)) as at, asyncio.timeout(HANG):
        assert build.threads == []
        async with asyncio.TaskGroup() as tasks:
            pages = [tasks.create_task(read(at)) for _ in range(2)]
            while not build.started.is_set():
                await asyncio.sleep(0)
            build.may_finish.set()  # by the loop, while the application is being built
        assert [page.result() for page in pages] == [b"page", b"page"]
    assert len(build.threads) == 1
    assert build.threads[0] is not threading.main_thread()


async def test_a_connection_is_counted_once_by_the_time_it_is_served():
    build, connections = Builder(), Connections("test", 9)
    build.may_finish.set()
    async with open_late_listener(build, "127.0.0.1:0", connections) as at, asyncio.timeout(HANG):
        reader, writer = await asyncio.open_connection(*at.split(":"))
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"page")
        assert len(connections) == 1
        writer.close()


class Full(asyncio.Protocol):
    """A protocol that wants no more data."""

    def __init__(self):
        self.received = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.pause_reading()
        self.received.set_result(data)


async def test_an_application_that_wants_no_more_data_is_given_no_more(monkeypatch):
    full, connections = Full(), Connections("test", 9)

    async def connection(_):
        [waiting] = connections
        while not waiting._received:
            await asyncio.sleep(0)
        return full

    monkeypatch.setattr(LateApplication, "connection", connection)
    async with open_late_listener(build, "127.0.0.1:0", connections) as at, asyncio.timeout(HANG):
        _, writer = await asyncio.open_connection(*at.split(":"))
        writer.write(REQUEST)
        assert await full.received == REQUEST
        assert not full.transport.is_reading()
        full.transport.abort()
        writer.close()


async def test_a_connection_is_closed_if_the_application_cannot_be_built_and_the_next_one_tries_again(caplog):
    build = Builder()
    build.may_finish.set()
    build.faults.append(ImportError("gone"))
    async with open_late_listener(build, "127.0.0.1:0", Connections("test", 9)) as at, asyncio.timeout(HANG):
        assert await read(at) == b""
        assert "could not be started" in caplog.text
        assert await read(at) == b"page"
