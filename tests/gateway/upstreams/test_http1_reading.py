"""How the HTTP client reads responses: every split, every framing, malformed answers, and the connection afterwards."""

import asyncio
from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConnectionLostError, NotSentError
from gateway.upstreams.http1.connection import MAX_WHOLE, PIECE, ServerConnection
from gateway.upstreams.http1.response import (
    MAX_HEAD,
    MAX_LINE,
    CompressedResponseError,
    MalformedResponseError,
    read_head,
)
from gateway.upstreams.http1.response_body import MAX_BUFFERED
from gateway.upstreams.reply import Reply, read_body
from hang import HANG

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"
EVENTS = b"Content-Type: text/event-stream\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def length(number: int) -> bytes:
    return b"Content-Length: %d\r\n" % number


class WireTransport:
    """A transport that records what is written and whether it was closed."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = self.paused = False

    def write(self, data) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Wire:
    """A connection with one request sent; the test plays the server."""

    def __init__(self, body: bytes = b"") -> None:
        self.idle = self.lost = 0
        self.received: list = []
        self.connection = ServerConnection(
            "http://x", self._note_idle, self._note_lost, lambda write: write()
        )
        self.transport = WireTransport()
        self.connection.connection_made(self.transport)
        self.connection.start(b"POST / HTTP/1.1\r\n\r\n", body, self.received.append)

    def _note_idle(self, connection) -> None:
        self.idle += 1

    def _note_lost(self, connection) -> None:
        self.lost += 1

    def feed(self, *parts: bytes) -> None:
        for part in parts:
            if not self.transport.closed:
                self.connection.data_received(part)

    def end(self, error: Exception | None = None) -> None:
        if error is None and not self.transport.closed:
            self.connection.eof_received()
        self.transport.closed = True
        self.connection.connection_lost(error)

    @property
    def reply(self) -> Reply:
        [reply] = self.received
        assert isinstance(reply, Reply), reply
        return reply

    @property
    def error(self) -> ConnectionLostError:
        [error] = self.received
        assert isinstance(error, ConnectionLostError)
        return error


async def read(reply: Reply) -> bytes:
    async with asyncio.timeout(HANG):
        return await read_body(reply)


# Complete answers: the answer, its status, its body, whether the connection stays.

COMPLETE = {
    "a length": (OK + JSON + length(2) + b"\r\n{}", 200, b"{}", True),
    "no body": (OK + length(0) + b"\r\n", 200, b"", True),
    "an event stream with a length": (OK + EVENTS + length(3) + b"\r\nabc", 200, b"abc", True),
    "chunks": (OK + CHUNKED + b"\r\n2\r\n{}\r\n1\r\n \r\n0\r\n\r\n", 200, b"{} ", True),
    "chunk extensions": (OK + CHUNKED + b'\r\n2;a=b;c="d"\r\n{}\r\n0;last\r\n\r\n', 200, b"{}", True),
    "trailers": (OK + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nX-A: b\r\nX-C: d\r\n\r\n", 200, b"{}", True),
    "chunked events": (OK + EVENTS + CHUNKED + b"\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n", 200, b"ab", True),
    "202 with chunks": (b"HTTP/1.1 202 Accepted\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 202, b"", True),
    "100 Continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + length(1) + b"\r\nx", 200, b"x", True),
    "two hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + OK + length(1) + b"\r\nx", 200, b"x", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b"", True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
    "no reason": (b"HTTP/1.1 200 \r\n" + length(1) + b"\r\nx", 200, b"x", True),
    "Connection: close": (OK + length(1) + b"Connection: close\r\n\r\nx", 200, b"x", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + length(1) + b"\r\nx", 200, b"x", False),
    "HTTP/1.0, kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + length(1) + b"\r\nx", 200, b"x", True),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPLETE)
async def test_an_answer_is_the_same_at_every_split(name):
    answer, status, body, stays = COMPLETE[name]
    splits = [(answer,), *((answer[:at], answer[at:]) for at in range(1, len(answer)))]
    splits.append(tuple(bytes([byte]) for byte in answer))
    for parts in splits:
        wire = Wire()
        wire.feed(*parts)
        assert wire.reply.status == status
        assert await read(wire.reply) == body
        assert (wire.idle, wire.transport.closed) == (stays, not stays), parts
        if wire.reply.streams:
            assert wire.reply.body is None


@pytest.mark.parametrize("name", COMPLETE)
async def test_bytes_after_a_complete_answer_close_the_connection(name):
    answer, status, body, _ = COMPLETE[name]
    for parts in (
        (answer + b"HTTP/1.1 200 OK\r\n",),
        (answer, b"HTTP/1.1 200 OK\r\n"),
        (answer + b"garbage",),
    ):
        wire = Wire()
        wire.feed(*parts)
        assert wire.reply.status == status
        assert await read(wire.reply) == body
        assert wire.transport.closed


@pytest.mark.parametrize("name", ["a length", "chunks"])
def test_any_byte_after_a_complete_answer_closes_the_connection(name):
    """Only an empty line after the last chunk is ignored, in the same read."""
    for byte in range(256):
        wire = Wire()
        wire.feed(COMPLETE[name][0] + bytes([byte]))
        assert wire.reply.body
        assert wire.transport.closed != (name == "chunks" and byte in b"\r\n"), byte


async def test_an_answer_without_a_length_ends_with_the_connection():
    wire = Wire()
    wire.feed(OK + JSON + b"\r\n{", b"}")
    wire.end()
    assert await read(wire.reply) == b"{}"
    assert (wire.idle, wire.lost) == (0, 1)


async def test_an_answer_without_a_length_is_cut_by_a_broken_connection():
    wire = Wire()
    wire.feed(OK + JSON + b"\r\n{}")
    wire.end(ConnectionResetError())
    with pytest.raises(ConnectionLostError):
        await read(wire.reply)


MALFORMED = {
    "no HTTP": b"nonsense\r\n\r\n",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "an empty head": b"\r\n\r\n",
    "an empty line first": b"\r\n\r\n" + OK + length(0) + b"\r\n",
    "a space in a name": OK + b"Content Length: 2\r\n\r\n{}",
    "no colon": OK + b"Content-Length\r\n\r\n",
    "a NUL": OK + b"X: a\0b\r\n" + length(0) + b"\r\n",
    "a lone CR": OK + b"X: a\rb\r\n" + length(0) + b"\r\n",
    "lone LFs": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
    "a folded header": OK + b"X: a\r\n b\r\n" + length(0) + b"\r\n",
    "two lengths": OK + length(1) + length(2) + b"\r\nxy",
    "the same length twice": OK + length(1) + length(1) + b"\r\nx",
    "a list of lengths": OK + b"Content-Length: 1, 1\r\n\r\nx",
    "a negative length": OK + b"Content-Length: -1\r\n\r\nx",
    "a signed length": OK + b"Content-Length: +1\r\n\r\nx",
    "a huge length": OK + b"Content-Length: 99999999999999999999999\r\n\r\nx",
    "a length and chunks": OK + length(5) + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks and a length": OK + CHUNKED + length(5) + b"\r\n0\r\n\r\n",
    "an empty coding": OK + b"Transfer-Encoding:\r\n" + length(1) + b"\r\nx",
    "an unknown coding": OK + b"Transfer-Encoding: gzip\r\n\r\nx",
    "a coding before chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": OK + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "an upgrade to nothing": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK + length(0) + b"\r\n",
    "a long line": OK + b"X: " + b"a" * MAX_LINE + b"\r\n" + length(0) + b"\r\n",
    "a long line without an end": OK + b"X: " + b"a" * MAX_LINE,
    "a long head": OK + b"X: aaaaaaaaaaaaa\r\n" * (MAX_HEAD // 16) + length(0) + b"\r\n",
    "a long head without an end": OK + b"X: aaaaaaaaaaaaa\r\n" * (MAX_HEAD // 16),
    "endless hints": b"HTTP/1.1 103 Early Hints\r\n\r\n" * (MAX_HEAD // 20),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_answer_leaves_doubt_and_closes_the_connection(name):
    wire = Wire()
    wire.feed(MALFORMED[name])
    assert isinstance(wire.error, MalformedResponseError)
    assert (wire.transport.closed, wire.idle) == (True, 0)


@pytest.mark.parametrize(
    "chunks",
    [
        b"x\r\n",
        b"-1\r\n",
        b"2\r\nabc\r\n",
        b"1\nx\n0\n\n",
        b"0\r\nContent-Length: 9\r\n\r\n",
        b"fffffffffffffffff\r\n",
    ],
)
async def test_malformed_chunks_leave_doubt_and_close_the_connection(chunks):
    wire = Wire()
    wire.feed(OK + JSON + CHUNKED + b"\r\n", b"1\r\na\r\n", chunks)
    with pytest.raises(ConnectionLostError):
        await read(wire.reply)
    assert wire.transport.closed


async def test_a_compressed_answer_leaves_doubt():
    wire = Wire()
    wire.feed(OK + JSON + b"Content-Encoding: gzip\r\n" + length(1) + b"\r\nx")
    assert isinstance(wire.error, CompressedResponseError)


ANSWER = OK + JSON + length(4) + b"\r\n{  }"


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_an_answer_cut_at_any_byte_leaves_doubt(error):
    for answer in (ANSWER, OK + JSON + CHUNKED + b"\r\n4\r\n{  }\r\n0\r\n\r\n"):
        for at in range(len(answer)):
            wire = Wire()
            wire.feed(answer[:at])
            wire.end(error)
            [received] = wire.received
            if isinstance(received, Reply):
                with pytest.raises(ConnectionLostError):
                    await read(received)
            else:
                assert type(received) is ConnectionLostError
            assert (wire.idle, wire.lost) == (0, 1)


def test_an_unsolicited_answer_closes_the_connection():
    wire = Wire()
    wire.feed(ANSWER)
    assert (wire.idle, wire.transport.closed) == (1, False)
    wire.feed(b"H")
    assert wire.transport.closed
    assert len(wire.received) == 1


@pytest.mark.parametrize("end", ["an answer", "a part of one", "lost", "closed"])
def test_a_request_whose_connection_ends_before_it_is_written_is_not_sent(end):
    wire, later = Wire(), []
    wire.feed(ANSWER)
    wire.connection._call_soon = later.append
    wire.transport.written.clear()
    wire.connection.start(b"head", b"body", wire.received.append)
    match end:
        case "an answer" | "a part of one":
            wire.connection.data_received(ANSWER if end == "an answer" else ANSWER[:5])
        case "lost":
            wire.connection.connection_lost(None)
        case "closed":
            wire.connection.close()
    [write] = later
    write()
    assert type(wire.received[-1]) is NotSentError
    assert (len(wire.received), wire.idle, wire.transport.written) == (2, 1, [])
    assert not wire.connection.is_open


def test_headers_have_lower_case_names_and_the_first_of_several_values():
    head = read_head(OK + b"Mcp-Session-Id: a\r\nmcp-session-id: b\r\nX-Text: \xc3\xa4 \xff \r\n\r\n")
    assert head.headers["mcp-session-id"] == "a"
    assert head.headers["x-text"].encode("utf-8", "surrogateescape") == b"\xc3\xa4 \xff"


def test_a_cached_head_is_equal_to_a_parsed_one_and_heads_that_differ_are_not_confused():
    heads = [OK + b"Date: %d\r\n" % second + length(second) + b"\r\n" for second in range(600)]
    for _ in range(2):
        assert [read_head(head).length for head in heads] == list(range(600))


async def test_an_unread_stream_is_not_read_from_its_server_without_end():
    wire = Wire()
    wire.feed(OK + EVENTS + b"\r\n")
    sent = 0
    while not wire.transport.paused:
        wire.feed(b"x" * 50_000)
        sent += 50_000
    assert MAX_BUFFERED < sent <= MAX_BUFFERED + 50_000
    assert len(await anext(wire.reply.chunks)) == sent
    assert not wire.transport.paused


async def test_a_long_answer_arrives_in_chunks_and_a_shorter_one_whole():
    for size, whole in ((MAX_WHOLE, True), (MAX_WHOLE + 1, False)):
        wire = Wire()
        wire.feed(OK + JSON + length(size) + b"\r\n")
        assert wire.received == [] if whole else wire.reply.body is None
        wire.feed(b"x" * size)
        assert (wire.reply.body is not None) == whole
        assert len(await read(wire.reply)) == size
        assert wire.idle == 1


async def test_closing_a_stream_closes_its_connection_and_ends_its_reader():
    wire = Wire()
    wire.feed(OK + EVENTS + b"\r\n")
    reading = asyncio.ensure_future(anext(wire.reply.chunks))
    await asyncio.sleep(0)
    wire.reply.close()
    assert wire.transport.closed
    with pytest.raises(ConnectionLostError):
        await reading


async def test_closing_a_complete_reply_leaves_the_connection_alone():
    wire = Wire()
    wire.feed(OK + EVENTS + length(1) + b"\r\nx")
    wire.reply.close()
    assert not wire.transport.closed


def test_a_long_request_is_written_piece_by_piece():
    wire = Wire(b"x" * (3 * PIECE))
    assert len(wire.transport.written) == 4
    slow = WireTransport()
    write = slow.write
    slow.write = lambda data: (write(data), wire.connection.pause_writing())
    wire = Wire()
    wire.feed(ANSWER)
    wire.connection._transport = slow
    wire.connection.start(b"", b"y" * (3 * PIECE), wire.received.append)
    for pieces in range(1, 4):
        assert len(slow.written) == pieces
        wire.connection.resume_writing()
    assert b"".join(slow.written) == b"y" * (3 * PIECE)


def test_an_answer_to_a_half_sent_request_closes_the_connection():
    wire = Wire()
    wire.feed(ANSWER)
    write = wire.transport.write
    wire.transport.write = lambda data: (write(data), wire.connection.pause_writing())
    wire.connection.start(b"", b"y" * (3 * PIECE), wire.received.append)
    wire.feed(ANSWER)
    assert [isinstance(reply, Reply) for reply in wire.received] == [True, True]
    assert (wire.idle, wire.transport.closed) == (1, True)


# Random valid answers in random pieces are read as h11 reads them.

TOKEN = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: name.lower() not in {
        "content-length", "transfer-encoding", "connection", "upgrade", "content-encoding", "content-type",
        "keep-alive", "proxy-connection",
    }
)  # fmt: skip
VALUE = st.from_regex(r"([!-~]([ -~]{0,30}[!-~])?)?", fullmatch=True)
BODY = st.lists(st.binary(min_size=1, max_size=60), max_size=5)


@st.composite
def answers(draw) -> bytes:
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    status = draw(st.sampled_from([200, 201, 202, 204, 304, 400, 401, 404, 500, 503]))
    headers = [
        f"{name}: {value}\r\n".encode() for name, value in draw(st.lists(st.tuples(TOKEN, VALUE), max_size=4))
    ]
    kept = (
        [[b"Connection: keep-alive\r\n"]] if version == b"1.1" else []
    )  # h11 keeps no connection of HTTP/1.0
    headers += draw(st.sampled_from([[], [EVENTS], [JSON], [b"Connection: close\r\n"], *kept]))
    chunks = draw(BODY) if status not in {204, 304} else []
    body = b"".join(chunks)
    match draw(st.sampled_from(["length", "chunked", "close"])) if version == b"1.1" else "close":
        case "length":
            headers.append(length(len(body)))
        case "chunked" if status not in {204, 304}:
            headers.append(CHUNKED)
            extension = draw(st.sampled_from([b"", b";a", b';a="b"']))
            trailer = draw(st.sampled_from([b"", b"X-Trailer: a\r\n"]))
            body = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
            body += b"0\r\n" + trailer + b"\r\n"
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * draw(st.integers(0, 2))
    return (
        hints
        + b"HTTP/%s %d Reason\r\n" % (version, status)
        + b"".join(draw(st.permutations(headers)))
        + b"\r\n"
        + body
    )


def read_by_h11(answer: bytes):
    """Return the status, the headers, the body, and whether the connection stays, as h11 reads them."""
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(answer)
    status, headers, body, ended = 0, {}, b"", False
    while not isinstance(event := peer.next_event(), h11.EndOfMessage):
        match event:
            case h11.Response():
                status = event.status_code
                for name, value in event.headers:
                    headers.setdefault(name.decode(), value.decode())
            case h11.Data():
                body += bytes(event.data)
            case h11.NEED_DATA:
                assert not ended
                ended = True
                peer.receive_data(b"")
    return status, headers, body, peer.their_state is h11.DONE and not ended


@settings(deadline=None, max_examples=200)
@given(answers(), st.lists(st.integers(1, 400), max_size=6))
async def test_random_answers_in_random_pieces_are_read_as_h11_reads_them(answer, cuts):
    bounds = [0, *sorted({cut for cut in cuts if cut < len(answer)}), len(answer)]
    wire = Wire()
    wire.feed(*(answer[start:end] for start, end in pairwise(bounds)))
    stays = wire.idle == 1
    if not stays:
        wire.end()
    status, headers, body, keeps = read_by_h11(answer)
    assert (wire.reply.status, dict(wire.reply.headers), await read(wire.reply), stays) == (
        status, headers, body, keeps,
    )  # fmt: skip
