"""What a server's answer loses on its way back."""

import json

import pytest

from gateway import relay
from gateway.upstreams import Reply, frame_reply, whole

LIST = {
    "jsonrpc": "2.0",
    "id": 1,
    "result": {"tools": [{"name": "a", "x": 1.0}, {"name": "b"}], "nextCursor": "c", "cacheScope": "public"},
}


async def chunks(*parts):
    for part in parts:
        yield part


def hides_b(name):
    return name == "b"


async def test_only_hidden_tools_are_taken_out_of_a_list():
    reply = await relay.edited(frame_reply(json.dumps(LIST).encode()), relay.hiding(hides_b))
    left = json.loads(await whole(reply.chunks))
    assert left["result"] == {"tools": [{"name": "a", "x": 1.0}], "nextCursor": "c", "cacheScope": "private"}


async def test_a_list_with_nothing_hidden_crosses_byte_for_byte():
    body = json.dumps(LIST, indent=3).encode()
    assert await whole((await relay.edited(frame_reply(body), relay.hiding(lambda _: False))).chunks) == body


async def test_a_list_in_a_stream_is_filtered_and_the_rest_of_the_stream_untouched():
    stream = [
        b": hi\n\n",
        b"id: 1\ndata: " + json.dumps(LIST).encode() + b"\n\n",
        b'data: {"method":"x"}\n\n',
    ]
    reply = Reply(status=200, headers={"content-type": "text/event-stream"}, chunks=chunks(*stream))
    out = await whole((await relay.edited(reply, relay.hiding(hides_b))).chunks)
    assert out.startswith(b": hi\n\nid: 1\n")
    assert b'"b"' not in out
    assert out.endswith(stream[2])


@pytest.mark.parametrize(
    "body",
    [b"", b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}', b'{"result":{"tools":[5,"x",null]}}'],
)
async def test_odd_lists_do_not_break_it(body):
    assert await whole((await relay.edited(frame_reply(body), relay.hiding(hides_b))).chunks) == body


async def test_a_refusal_of_the_gateways_credentials_stays_here():
    with pytest.raises(relay.CredentialsRefusedError):
        relay.checked(Reply(status=401, headers={"WWW-Authenticate": "Bearer resource_metadata=..."}))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_an_error(status):
    with pytest.raises(relay.RedirectedError):
        relay.checked(Reply(status=status, headers={"Location": "http://elsewhere"}))


async def test_a_changed_list_is_noticed_wherever_the_chunks_are_cut():
    seen = []
    event = b'data: {"method":"notifications/tools/list_changed"}\n\n'
    for cut in range(len(event)):
        reply = Reply(
            status=200, headers={"content-type": "text/event-stream"}, chunks=chunks(event[:cut], event[cut:])
        )
        assert await whole(relay.watched(reply, lambda: seen.append(1)).chunks) == event
    assert len(seen) == len(event)
