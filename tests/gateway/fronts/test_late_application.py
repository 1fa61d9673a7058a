"""An application that is built late misses nothing that its clients send meanwhile."""

import asyncio

import pytest
import uvloop
from aiohttp import web

from gateway.fronts.connections import Connections
from gateway.fronts.late_application import open_late_listener
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
