"""One HTTP/1.1 connection as a raw asyncio protocol: writes prepared requests, and splits the responses from the bytes."""

import asyncio
from dataclasses import dataclass
from functools import lru_cache

#: The length of a chunked body.
CHUNKED = -1


class WrongResponse(Exception):
    """A response is not the expected one, or the connection was closed without it."""


@lru_cache(4096)
def read_head(head: bytes) -> tuple[int, int]:
    """Return the status, and the length of the body or CHUNKED."""
    first, *lines = head.split(b"\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    chunked = b"transfer-encoding" in fields
    return int(first.split(b" ")[1]), CHUNKED if chunked else int(fields.get(b"content-length", 0))


def read_chunks(received: bytes, start: int) -> bytes | None:
    """Return the chunked body at *start* if it is complete."""
    chunks = []
    while (end := received.find(b"\r\n", start)) >= 0:
        size = int(received[start:end].partition(b";")[0], 16)
        start = end + 2 + size + 2
        if len(received) < start:
            return None
        if not size:
            return b"".join(chunks)
        chunks.append(received[end + 2 : end + 2 + size])
    return None


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes


def read_response(received: bytes) -> Response | None:
    """Return the response if it is complete."""
    if (end := received.find(b"\r\n\r\n") + 4) < 4:
        return None
    status, length = read_head(received[: end - 4])
    if length == CHUNKED:
        body = read_chunks(received, end)
        return None if body is None else Response(status, body)
    return Response(status, received[end:]) if len(received) == end + length else None


class Connection(asyncio.Protocol):
    """A connection with one request at a time; subclasses handle the response and the loss of the connection."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        response = read_response(received)
        if response is None:
            self._received = received
            return
        self._received = b""
        self.response_received(response)

    def send(self, request: bytes) -> None:
        self._transport.write(request)

    def close(self) -> None:
        self._transport.abort()

    def response_received(self, response: Response) -> None:
        raise NotImplementedError


class Client(Connection):
    """A connection for single requests."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: asyncio.Future[Response] | None = None

    async def ask(self, request: bytes) -> Response:
        """Send a request and return its response; raises `WrongResponse` when the connection is closed."""
        self._waiting = asyncio.get_running_loop().create_future()
        self.send(request)
        return await self._waiting

    def response_received(self, response: Response) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(response)

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(WrongResponse(f"the connection was closed: {error}"))


async def connect(port: int, protocol: type[Client] = Client) -> Client:
    _, client = await asyncio.get_running_loop().create_connection(protocol, "127.0.0.1", port)
    return client


def build_request(verb: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request for this machine. The body is JSON."""
    lines = [f"{verb} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if body or verb == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
