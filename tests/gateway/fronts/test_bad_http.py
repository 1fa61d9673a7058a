"""Both listeners refuse bad HTTP with one log line and never a traceback."""

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest

from aiohttp_listener import open_listener
from approvals.web.application import build_inbox
from gateway.fronts.connection_limits import Connections
from gateways import running
from hang import HANG
from inbox import Inbox

SECRET = b"secret-token"
HOST = b"Host: 127.0.0.1\r\n"
FORM = (
    b"POST /login HTTP/1.1\r\n"
    + HOST
    + b"Sec-Fetch-Site: none\r\nContent-Type: application/x-www-form-urlencoded\r\n"
)
JSON = (
    b"POST /mcp/notes HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nAccept: application/json\r\n"
)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
HEADS = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a bad header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"Authorization : " + SECRET + b"\r\n\r\n",
    "a long header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + SECRET * 2000 + b"\r\n\r\n",
    "a bad length": b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    "a later one": b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\nGARBAGE\r\n\r\n",
}
BODIES = {
    "a bad chunk": CHUNKED + b"zz\r\nab\r\n0\r\n\r\n",
    "a later bad chunk": CHUNKED + b"2\r\n{}\r\nzz\r\n0\r\n\r\n",
}


async def talk(at, sent):
    """Send raw bytes, and return all bytes received until the connection is closed."""
    host, port = at.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        async with asyncio.timeout(HANG):
            return await reader.read()
    finally:
        writer.close()


@asynccontextmanager
async def agents():
    async with running() as gateway:
        yield gateway.url.split("/")[2], JSON


@asynccontextmanager
async def inbox():
    async with (
        Inbox() as made,
        open_listener(
            build_inbox(made.service, made.store, made.options), "127.0.0.1:0", Connections("inbox", 9)
        ) as at,
    ):
        yield at, FORM


@pytest.mark.parametrize("served", [agents, inbox])
@pytest.mark.parametrize("name", [*HEADS, *BODIES])
async def test_bad_http_is_400_and_one_line(served, name, caplog):
    caplog.set_level(logging.INFO)
    async with served() as (at, post):
        answer = await talk(at, HEADS[name] if name in HEADS else post + BODIES[name])
    assert b"HTTP/1." in answer and b" 400 " in answer, answer
    [record] = [one for one in caplog.records if one.name.startswith(("okayed", "aiohttp", "approvals"))]
    assert record.exc_info is None
    assert record.message.startswith("127.0.0.1 sent malformed HTTP: ")
    assert "\n" not in record.message
    assert SECRET.decode() not in record.message


@pytest.mark.parametrize("served", [agents, inbox])
async def test_a_client_that_leaves_during_its_body_is_not_an_error(served, caplog):
    async with served() as (at, post):
        host, port = at.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(post + b"Content-Length: 10\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await talk(at, b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING] == []
