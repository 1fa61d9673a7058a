"""The grammar of plain heads: a strict subset of the heads that aiohttp reads, and reads in the same way."""

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser as HttpRequestParserC
from aiohttp.http_parser import HttpRequestParserPy
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fronts import plain_head
from gateway.fronts.known_heads import MAX_KEPT, MAX_KEPT_HEAD, KnownHeads

HOSTS = frozenset({"127.0.0.1"})
PLAIN = (
    b"POST /mcp/notes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer a-secret-token\r\nContent-Length: 17\r\n\r\n"
)
NEXT = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
#: Lines that change how a request is read, or that parsers disagree about.
ODD_LINES = [
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding : chunked",
    b"Content-Length: 3", b"Content-Length: +3", b"Content-Length: -1", b"Content-Length: 3, 3", b"Content-Length:",
    b"Content-Length: 0x3", b"Content-Length: 3 ", b"content-length: 03", b"CONTENT-LENGTH: 3", b"Content-Length : 3",
    b"Host: evil.example", b"Host:", b"Expect: 100-continue", b"Upgrade: websocket", b"Upgrade: h2c",
    b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade", b"Connection: close, keep-alive",
    b"Proxy-Connection: close", b"Content-Encoding: gzip", b"X-Folded: 1\r\n 2", b"X-Tab:\t1", b"X-Nul: a\0b",
    b"X-High: \xc3\xa9", b"X-Odd: \xff", b"X-Cr: a\rb", b"X-Lf: a\nb", b"X Y: 1", b": 1", b"X-Empty:", b"X:   1   ",
    b"Trailer: X", b"TE: trailers", b"X: 1", b"x: 2", b"Origin: null", b"Sec-WebSocket-Key1: 1", b"Mcp-Name: a",
    b"Set-Cookie: a=b", b"X" * 9000 + b": 1", b"X: " + b"1" * 9000,
]  # fmt: skip
TARGETS = [
    b"/mcp/notes", b"/mcp/a.b_c~d-e", b"/mcp/..", b"/mcp/", b"/mcp/a/b", b"/mcp/a?b", b"/mcp/a#b", b"/mcp/%61", b"*",
    b"http://127.0.0.1/mcp/notes", b"//mcp/notes", b"/healthz", b"/readyz", b"/mcp/\xff", b"/nowhere",
]  # fmt: skip
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b"HTTP/2.0"]


@st.composite
def heads(draw):
    """Return a plain head with a few odd lines, and sometimes another request line or a random edit."""
    verb = draw(st.sampled_from([b"POST"] * 6 + [b"GET", b"DELETE", b"HEAD", b"post"]))
    target = draw(st.sampled_from([b"/mcp/notes"] * 15 + TARGETS))
    version = draw(st.sampled_from([b"HTTP/1.1"] * 15 + VERSIONS))
    odd = draw(st.lists(st.sampled_from(ODD_LINES), max_size=2))
    lines = draw(st.permutations([*PLAIN.split(b"\r\n")[1:-2], *odd]))
    made = b"\r\n".join([b" ".join([verb, target, version]), *lines]) + plain_head.END
    if draw(st.booleans()):
        at, cut = draw(st.integers(0, len(made))), draw(st.integers(0, 1))
        made = made[:at] + draw(st.binary(max_size=2)) + made[at + cut :]
    return made


def read_by(parser, received):
    """Return how aiohttp's *parser* reads a head, a body of the declared length, and another request."""
    [(message, body)], upgraded, _ = parser.feed_data(received)
    assert not upgraded
    length = int(message.headers.get("Content-Length", "0"))
    assert not parser.feed_data(b"x" * length)[0]
    assert body.is_eof()
    assert body.total_bytes == length
    if not message.should_close:
        [(following, _)], upgraded, tail = parser.feed_data(NEXT)
        assert (following.path, upgraded, tail) == ("/healthz", False, b"")
    pairs = [(name.lower(), value) for name, value in message.headers.items()]
    return message, pairs, length


@pytest.mark.parametrize("make", [HttpRequestParserC, HttpRequestParserPy])
@settings(max_examples=800)
@given(received=heads())
def test_aiohttp_reads_every_plain_head_in_the_same_way(make, received):
    end = received.find(plain_head.END)
    if end < 0 or (found := KnownHeads(HOSTS).read(received[: end + 4])) is None or found[1] > 1 << 20:
        return
    received = received[: end + 4]
    known, length = found
    loop = asyncio.new_event_loop()
    try:
        parser = make(BaseProtocol(loop), loop, 1 << 22, payload_exception=HttpProcessingError)
        message, pairs, expected = read_by(parser, received)
    finally:
        loop.close()
    probe = f"/{known.probe}" if known.probe else f"/mcp/{known.server}"
    assert (message.method, message.path) == (known.verb, probe)
    assert [pair for pair in pairs if pair[0] != "content-length"] == list(known.head.pairs)
    assert (message.should_close, length) == (not known.keep_alive, expected)
    assert not (message.upgrade or message.chunked or message.compression)


@pytest.mark.parametrize("line", ODD_LINES)
def test_a_line_that_changes_the_framing_is_not_plain(line):
    plain = {b"TE: trailers", b"X: 1", b"x: 2", b"Origin: null", b"Mcp-Name: a", b"Set-Cookie: a=b", b"X:   1   ",
             b"Connection: close", b"Connection: keep-alive"}  # fmt: skip
    found = KnownHeads(HOSTS).read(PLAIN.replace(b"Content-Type", line + b"\r\nContent-Type"))
    assert (found is not None) == (line in plain)


@pytest.mark.parametrize("target", TARGETS)
def test_only_simple_targets_are_plain(target):
    found = KnownHeads(HOSTS).read(PLAIN.replace(b"/mcp/notes", target))
    assert (found is not None) == (target in {b"/mcp/notes", b"/mcp/a.b_c~d-e"})


@pytest.mark.parametrize("version", VERSIONS)
def test_only_http_1_1_is_plain(version):
    found = KnownHeads(HOSTS).read(PLAIN.replace(b"HTTP/1.1", version))
    assert (found is not None) == (version == b"HTTP/1.1")


@pytest.mark.parametrize("length", [b"0", b"17", b"4194304", b"99999999"])
def test_heads_that_differ_only_in_length_share_what_was_parsed(length):
    heads = KnownHeads(HOSTS)
    known, _ = heads.read(PLAIN)
    heads.keep(known)
    again, found = heads.read(PLAIN.replace(b"17", length))
    assert again is known
    assert found == int(length)


@pytest.mark.parametrize(
    "length", [b"+1", b"-1", b"007", b"0x1", b"1 1", b"1,1", b"", b"999999999", b"1_0", "١".encode()]
)
def test_an_odd_length_is_not_plain_even_if_the_rest_of_the_head_is_known(length):
    heads = KnownHeads(HOSTS)
    known, _ = heads.read(PLAIN)
    heads.keep(known)
    assert heads.read(PLAIN.replace(b"17", length)) is None
    twice = PLAIN.replace(b"Content-Length: 17", b"Content-Length: 17\r\nContent-Length: 5")
    assert heads.read(twice) is None


@pytest.mark.parametrize("verb", [b"GET", b"DELETE"])
def test_only_a_post_has_a_body(verb):
    read = KnownHeads(HOSTS).read
    assert read(PLAIN.replace(b"POST", verb)) is None
    assert read(PLAIN.replace(b"POST", verb).replace(b"17", b"0")) is not None
    assert read(PLAIN.replace(b"Content-Length: 17\r\n", b"")) is None


def test_few_and_short_heads_are_kept():
    heads = KnownHeads(HOSTS)
    for number in range(MAX_KEPT + 10):
        known, _ = heads.read(PLAIN.replace(b"notes", b"notes%d" % number))
        heads.keep(known)
    assert len(heads) == MAX_KEPT
    long = PLAIN.replace(b"secret", b"secret" * (MAX_KEPT_HEAD // 6))
    known, _ = heads.read(long)
    heads.keep(known)
    assert heads.read(long)[0] is not known


def test_a_token_in_a_head_is_not_in_its_repr():
    known, _ = KnownHeads(HOSTS).read(PLAIN)
    assert "secret" not in repr(known) + repr(plain_head.parse_head(plain_head.split_length(PLAIN)[0]))


def test_every_beginning_of_a_plain_head_may_be_plain():
    assert [count for count in range(1, len(PLAIN)) if not plain_head.may_be_plain(PLAIN[:count])] == []


@pytest.mark.parametrize(
    "beginning",
    [
        b"\x16\x03\x01", b"SSH-2.0", b"\r\n", b"PUT /mcp/notes", b"POST /mcp/notes HTTP/1.1\nHost: x", b"POST /mcp/notes\0",
        b"POST http://", PLAIN[:-2] + b"X\0", PLAIN[:-2] + b"X" * plain_head.MAX_HEAD,
    ],
)  # fmt: skip
def test_a_beginning_that_is_not_plain_is_known_early(beginning):
    assert not plain_head.may_be_plain(beginning)
