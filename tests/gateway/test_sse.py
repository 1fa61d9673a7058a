"""Event streams, cut anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import sse
from gateway.errors import TooLongError


async def chunks(*parts):
    for part in parts:
        yield part


async def read(*parts):
    return [event async for event in sse.events(chunks(*parts))]


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
    import asyncio

    first, second = sorted((first, second))
    cut = asyncio.run(read(STREAM[:first], STREAM[first:second], STREAM[second:]))
    assert [event.data for event in cut] == [b'{"a":1}', b"", b"one\ntwo"]


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
async def test_a_byte_order_mark_before_the_first_event_is_no_part_of_it(cut):
    stream = b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"
    first, second = await read(stream[:cut], stream[cut:])
    assert (first.data, first.raw) == (b"a", b"data: a\n\n")
    assert (
        second.data == b""
    )  # in the middle of a stream it is a letter, which makes another field of the line


async def test_an_event_has_a_longest_length():
    with pytest.raises(TooLongError):
        await read(b"data: " + b"x" * sse.MAX_EVENT + b"y")


async def test_ours_read_back():
    [event] = await read(sse.event(b"{}"))
    assert event.data == b"{}"
    [comment] = await read(sse.comment("waiting"))
    assert comment.data == b""


async def test_an_event_with_other_data_keeps_its_id_and_type():
    [event] = await read(b"id: 7\nevent: message\nretry: 5\ndata: a\ndata: b\n\n")
    assert event.carrying(b"c") == b"id: 7\nevent: message\nretry: 5\ndata: c\n\n"
