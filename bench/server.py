"""A neutral MCP server as one raw asyncio protocol: `get_thing` and `create_thing` answer at once with their `text`.

`python bench/server.py PORT [--sse]`. It speaks JSON or, with `--sse`, event streams, in every revision and without
sessions. A call costs it about 10 us, so that the routes to it are measured and not the server.
"""

import argparse
import asyncio
from functools import lru_cache

import msgspec
import uvloop

SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}, "text": {"type": "string"}}}
TOOLS = [{"name": name, "inputSchema": SCHEMA} for name in ("get_thing", "create_thing")]
SERVER = {"capabilities": {"tools": {}}, "serverInfo": {"name": "bench", "version": "1"}}
#: The results of all methods except tools/call.
RESULTS = {
    "initialize": {"protocolVersion": "2025-11-25", **SERVER},
    "server/discover": {"resultType": "complete", "supportedVersions": ["2026-07-28"], **SERVER},
    "tools/list": {"resultType": "complete", "tools": TOOLS, "ttlMs": 60000, "cacheScope": "public"},
}
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%b"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
#: GET and DELETE: this server has neither streams nor sessions.
NOT_ALLOWED = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
#: A member that is missing.
NOTHING = msgspec.Raw(b"")


class Arguments(msgspec.Struct):
    text: msgspec.Raw = NOTHING


class Params(msgspec.Struct):
    arguments: Arguments = msgspec.field(default_factory=Arguments)


class Message(msgspec.Struct):
    method: str
    id: msgspec.Raw = NOTHING
    params: Params = msgspec.field(default_factory=Params)


decode = msgspec.json.Decoder(Message).decode


def build_call_result(request_id: bytes, text: bytes) -> bytes:
    """Return the response to a tools/call; both arguments are JSON."""
    return (
        b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":%b}],"resultType":"complete"}}'
        % (request_id, text)
    )


def build_event(frame: bytes) -> bytes:
    return b"event: message\ndata: %b\n\n" % frame


def answer(body: bytes) -> bytes | None:
    """Return the response frame; None for a notification."""
    message = decode(body)
    if not (request_id := bytes(message.id)):
        return None
    if message.method == "tools/call":
        return build_call_result(request_id, bytes(message.params.arguments.text))
    result = msgspec.json.encode(RESULTS[message.method])
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request_id, result)


@lru_cache(4096)
def read_head(head: bytes) -> tuple[bytes, int]:
    """Return the method of a request, and the length of its body."""
    first, *lines = head.split(b"\r\n")
    fields = (line.partition(b":") for line in lines)
    lengths = [int(value) for name, _, value in fields if name.lower() == b"content-length"]
    return first.split(b" ")[0], lengths[0] if lengths else 0


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, *, sse: bool) -> None:
        self._sse = sse
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        while (end := received.find(b"\r\n\r\n") + 4) > 3:
            method, length = read_head(received[: end - 4])
            if len(received) < end + length:
                break
            self._transport.write(
                self._respond(received[end : end + length]) if method == b"POST" else NOT_ALLOWED
            )
            received = received[end + length :]
        self._received = received

    def _respond(self, body: bytes) -> bytes:
        if (frame := answer(body)) is None:
            return ACCEPTED
        if not self._sse:
            return JSON_HEAD % (len(frame), frame)
        event = build_event(frame)
        return SSE_HEAD % (b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))


async def serve(port: int, *, sse: bool) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(sse=sse), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--sse", action="store_true", help="answer with event streams")
    options = parser.parse_args()
    uvloop.run(serve(options.port, sse=options.sse))
