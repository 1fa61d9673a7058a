"""HTTP servers: requests, redirects, and failed connections."""

import asyncio
import socket

import pytest
from aiohttp import web

from gateway.errors import ConnectionLostError, NotSentError, ResponseTooLargeError
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http import HttpUpstream
from gateway.upstreams.http1 import pool
from gateway.upstreams.http1.address import parse_address
from gateway.upstreams.http1.pool import KEEPALIVE_OPTIONS, ConnectionPool
from gateway.upstreams.reply import Reply, frame_reply, join, read_body, replace_body
from hang import HANG
from recording_server import RecordingServer


@pytest.fixture
async def http():
    async with ConnectionPool() as session:
        yield session


async def test_a_frame_is_sent_with_only_the_gateways_credentials(http):
    async with RecordingServer() as recorder:
        upstream = HttpUpstream(recorder.url, FixedCredentials({"Authorization": "Bearer ours"}), http)
        reply = await upstream.send(
            "POST", b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"mcp-session-id": "s"}
        )
        assert (reply.status, reply.media_type, reply.streams) == (200, "application/json", False)
        await read_body(reply)
        reply.close()
        await upstream.close()
    [received] = recorder.received
    assert received.headers["authorization"] == "Bearer ours"
    assert received.headers["mcp-session-id"] == "s"
    assert received.headers["accept"] == "application/json, text/event-stream"
    assert set(received.headers) <= {
        "host",
        "authorization",
        "mcp-session-id",
        "accept",
        "content-type",
        "content-length",
        "accept-encoding",
    }


async def test_a_large_body_arrives_whole(http):
    async with RecordingServer() as recorder:
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"' + b"x" * (2 << 20) + b'"}}'
        reply = await HttpUpstream(recorder.url, FixedCredentials(), http).send("POST", body, {})
        reply.close()
    assert recorder.received[0].body == body


async def test_a_redirect_is_returned_and_not_followed(http):
    async def redirect(request, frame):
        return web.Response(status=307, headers={"Location": "/mcp"})

    async with RecordingServer(on_call=redirect) as recorder:
        reply = await HttpUpstream(recorder.url, FixedCredentials(), http).send(
            "POST", b'{"id":1,"method":"tools/call"}', {}
        )
        assert reply.status == 307
        reply.close()
        assert len(recorder.received) == 1


async def test_an_unreachable_server_is_sent_nothing(http):
    async with RecordingServer() as recorder:
        url = recorder.url
    with pytest.raises(NotSentError, match="could not be reached"):
        await HttpUpstream(url, FixedCredentials(), http).send("POST", b"{}", {})


async def silent(request, frame):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await asyncio.Event().wait()


async def test_the_wait_for_a_free_connection_is_limited(monkeypatch):
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 0.5)
    async with (
        RecordingServer(on_get=silent) as recorder,
        ConnectionPool(connections=1) as http,
        asyncio.timeout(HANG),
    ):
        upstream = HttpUpstream(recorder.url, FixedCredentials(), http)
        stream = await upstream.send("GET", b"", {})
        with pytest.raises(NotSentError, match="All connections to the server have been in use"):
            await upstream.send("POST", b"{}", {})
        stream.close()
        assert [one.verb for one in recorder.received] == ["GET"]


async def test_connections_have_tcp_keepalive(http):
    async with RecordingServer(on_get=silent) as recorder:
        connection = await http.acquire(parse_address(recorder.url))
        socket_ = connection._transport.get_extra_info("socket")
        assert socket_.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        looks = {name: value for name, value in KEEPALIVE_OPTIONS.items() if hasattr(socket, name)}
        assert {
            name: socket_.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in looks
        } == looks


async def raw_server(answer):
    """Serve raw bytes: a library would not let a test behave like a broken server."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if writer.can_write_eof():
            writer.write_eof()
        await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"nonsense\r\n\r\n"])
async def test_a_connection_that_breaks_before_the_answer_leaves_doubt(http, answer):
    server = await raw_server(answer)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    with pytest.raises(ConnectionLostError):
        await HttpUpstream(url, FixedCredentials(), http).send("POST", b"{}", {})
    server.close()


async def test_an_answer_that_breaks_off_leaves_doubt(http):
    server = await raw_server(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    reply = await HttpUpstream(url, FixedCredentials(), http).send("POST", b"{}", {})
    with pytest.raises(ConnectionLostError):
        await read_body(reply)
    reply.close()
    server.close()


async def test_closing_an_unread_reply_closes_the_connection(http):
    gone = asyncio.Event()

    async def endless(request, frame):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b": x\n\n")
                await asyncio.sleep(0)
        except ConnectionResetError:
            gone.set()
        return response

    async with RecordingServer(on_call=endless) as recorder:
        reply = await HttpUpstream(recorder.url, FixedCredentials(), http).send(
            "POST", b'{"id":1,"method":"tools/call"}', {}
        )
        assert reply.streams
        await anext(reply.chunks)
        reply.close()
        async with asyncio.timeout(HANG):
            await gone.wait()


async def test_the_size_of_an_answer_is_limited():
    async def endless():
        while True:
            yield b"x" * (1 << 20)

    with pytest.raises(ResponseTooLargeError):
        await join(endless())


async def test_our_own_replies_have_a_status_headers_and_a_body():
    reply = frame_reply(b"{}", status=400, headers={"X": "y"})
    assert (reply.status, reply.header("x"), await read_body(reply)) == (400, "y", b"{}")
    reply.close()
    empty = Reply(status=202)
    assert (await read_body(empty), empty.media_type) == (b"", "")
    assert await read_body(replace_body(reply, b"[]")) == b"[]"
