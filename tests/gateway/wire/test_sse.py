"""The event stream parser, with streams cut at any byte."""

import asyncio
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ResponseTooLargeError
from gateway.wire import sse


async def chunks(*parts):
    for part in parts:
        yield part


async def read(*parts):
    return [event async for event in sse.split_events(chunks(*parts))]


STREAM = b'id: 1\nevent: message\ndata: {"a":1}\n\n: beat\n\nid: 2\r\ndata: one\r\ndata:two\r\n\r\ndata: rest'


async def test_events_are_split_and_their_data_joined():
    events = await read(STREAM)
    assert [event.data for event in events] == [b'{"a":1}', b"", b"one\ntwo"]
    assert b"".join(event.raw for event in events) == STREAM[: -len(b"data: rest")]


async def test_an_event_that_names_no_type_is_a_message():
    kinds = [event.kind for event in await read(b"event: endpoint\ndata: /a\n\n", b"data: x\n\nevent:\n\n")]
    assert kinds == ["endpoint", "message", "message"]


@given(st.integers(0, len(STREAM)), st.integers(0, len(STREAM)))
def test_where_a_stream_is_cut_into_chunks_does_not_matter(first, second):
    first, second = sorted((first, second))
    cut = asyncio.run(read(STREAM[:first], STREAM[first:second], STREAM[second:]))
    assert [event.data for event in cut] == [b'{"a":1}', b"", b"one\ntwo"]


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
async def test_a_byte_order_mark_before_the_first_event_is_ignored(cut):
    stream = b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"
    first, second = await read(stream[:cut], stream[cut:])
    assert (first.data, first.raw) == (b"a", b"data: a\n\n")
    assert second.data == b""  # in the middle of a stream it is a letter, so it changes the name of the field


LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\n|\r)")


def by_the_standard(stream):
    """Parse a whole stream line by line with the algorithm of the standard (WHATWG HTML, 9.2.6)."""
    found, data = [], []
    for line in LINE.findall(stream):
        if not line:
            found, data = [*found, b"\n".join(data)], []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    return [one for one in found if one]


@given(st.data())
def test_any_mix_of_line_ends_is_read_as_the_standard_says(data):
    pieces = st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b"data:y", b"id: 1", b": c", b"data:"])
    stream = b"".join(data.draw(st.lists(pieces, max_size=30)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]
    found = asyncio.run(read(*parts))
    assert [event.data for event in found if event.data] == by_the_standard(stream)
    assert stream.startswith(b"".join(event.raw for event in found))


@pytest.mark.parametrize("end", [b"\n\r", b"\r\n\r", b"\n\n", b"\r\r", b"\r\n\r\n", b"\r\n\n", b"\n\r\n"])
async def test_an_event_is_returned_with_its_last_byte(end):
    """The next byte may be long in coming, so the parser does not wait for it."""
    assert [event.data for event in await read(b"data: a" + end)] == [b"a"]


class Counted(bytearray):
    """A buffer that counts the bytes searched."""

    looked_at = 0

    def find(self, mark, start):
        at = super().find(mark, start)
        self.looked_at += (len(self) if at < 0 else at + len(mark)) - start
        return at


@pytest.mark.parametrize(
    "stream, size",
    [(b"data: " + b"x" * (1 << 20) + b"\n\n", 256), (b"data: x\n\n" * 20_000, 1 << 20)],
    ids=["one long event in small pieces", "many short events at once"],
)
def test_each_byte_is_searched_once_for_each_separator(stream, size):
    buffer = Counted()
    splitter = sse.EventSplitter(buffer)
    parts = (stream[at : at + size] for at in range(0, len(stream), size))
    blocks = [block for part in parts for block in splitter.take(part)]
    assert b"".join(blocks) == stream
    assert buffer.looked_at <= 4 * len(stream)


async def test_an_event_has_a_maximum_length():
    with pytest.raises(ResponseTooLargeError):
        await read(b"data: " + b"x" * sse.MAX_EVENT + b"y")


async def test_events_and_comments_can_be_read_back():
    [event] = await read(sse.build_event(b"{}"))
    assert event.data == b"{}"
    [comment] = await read(sse.build_comment("waiting"))
    assert comment.data == b""


async def test_an_event_with_other_data_keeps_its_id_and_type():
    [event] = await read(b"id: 7\nevent: message\nretry: 5\ndata: a\ndata: b\n\n")
    assert event.with_data(b"c") == b"id: 7\nevent: message\nretry: 5\ndata: c\n\n"


@pytest.mark.parametrize("line", ["retry: \u00b2", "retry: " + "9" * 5000, "id: a\0b"])
async def test_an_invalid_id_or_retry_is_ignored(line):
    """Python accepts superscript digits as digits, and no header may contain NUL."""
    [event] = await read(line.encode() + b"\ndata: x\n\n")
    place = sse.ResumePoint()
    place.advance(event)
    assert place.id is None
    assert place.wait in (1.0, sse.LONGEST_WAIT)
