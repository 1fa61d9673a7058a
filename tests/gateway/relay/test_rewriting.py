"""Upstream responses are rewritten before they reach the client."""

import json

import pytest

from gateway.errors import ConnectionLostError
from gateway.relay import rewriting
from gateway.upstreams.reply import Reply, frame_reply, read_body
from gateway.wire import protocol, sse

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


async def test_only_hidden_tools_are_removed_from_a_list():
    reply = await rewriting.edit_result(frame_reply(json.dumps(LIST).encode()), rewriting.hide_tools(hides_b))
    left = json.loads(await read_body(reply))
    assert left["result"] == {"tools": [{"name": "a", "x": 1.0}], "nextCursor": "c", "cacheScope": "private"}


async def test_a_list_without_hidden_tools_passes_byte_for_byte():
    body = json.dumps(LIST, indent=3).encode()
    assert (
        await read_body(await rewriting.edit_result(frame_reply(body), rewriting.hide_tools(lambda _: False)))
        == body
    )


async def test_a_list_in_a_stream_is_filtered_and_other_events_are_unchanged():
    stream = [
        b": hi\n\n",
        b"id: 1\ndata: " + json.dumps(LIST).encode() + b"\n\n",
        b'data: {"method":"x"}\n\n',
    ]
    reply = Reply(status=200, headers={"content-type": "text/event-stream"}, chunks=chunks(*stream))
    out = await read_body(await rewriting.edit_result(reply, rewriting.hide_tools(hides_b)))
    assert out.startswith(b": hi\n\nid: 1\n")
    assert b'"b"' not in out
    assert out.endswith(stream[2])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}',
        b'{"result":{"tools":[5,"x",null]}}',
        b'{"result":{"tools":null}}',
        b'{"result":{"tools":{"a":1}}}',
        b'{"result":5}',
    ],
)
async def test_malformed_lists_pass_unchanged(body):
    edits = (
        rewriting.hide_tools(hides_b),
        rewriting.report_tools(lambda _: None),
        rewriting.annotate_tools(lambda _: True),
        rewriting.offer_tasks_in_tools(lambda _: True),
    )
    assert await read_body(await rewriting.edit_result(frame_reply(body), *edits)) == body


@pytest.mark.parametrize(
    ("edit", "result", "edited"),
    [
        (rewriting.offer_tasks, {"capabilities": None}, {"capabilities": None}),
        (
            rewriting.offer_extension,
            {"capabilities": None},
            {"capabilities": {"extensions": {protocol.TASKS: {}}}},
        ),
        (
            rewriting.offer_tasks_in_tools(lambda _: True),
            {"tools": [{"name": "a", "execution": None}]},
            {"tools": [{"name": "a", "execution": {"taskSupport": "optional"}}]},
        ),
    ],
)
async def test_malformed_members_are_ignored(edit, result, edited):
    reply = await rewriting.edit_result(frame_reply(json.dumps({"result": result}).encode()), edit)
    assert json.loads(await read_body(reply))["result"] == edited


async def test_hidden_tools_stay_hidden_with_other_edits():
    edits = (
        rewriting.hide_tools(hides_b),
        rewriting.annotate_tools(lambda _: True),
        rewriting.offer_tasks_in_tools(lambda _: True),
    )
    reply = await rewriting.edit_result(frame_reply(json.dumps(LIST).encode()), *edits)
    assert json.loads(await read_body(reply))["result"]["tools"] == [
        {
            "name": "a",
            "x": 1.0,
            "description": rewriting.APPROVAL_NEEDED,
            "execution": {"taskSupport": "optional"},
        }
    ]


@pytest.mark.parametrize(
    ("status", "body"), [(404, b"Session not found"), (502, b"<html>Bad gateway</html>")]
)
async def test_an_http_error_passes_unchanged(status, body):
    refusal = Reply(status=status, headers={"content-type": "text/html"}, chunks=chunks(body))
    reply = await rewriting.edit_result(refusal, rewriting.hide_tools(hides_b))
    assert (reply.status, await read_body(reply)) == (status, body)


UNREADABLE = [b"<html>", b"[1]", b'{"result":{"tools":[{"name":"\xff"}]}}', b'{"result":' + b"[" * 100_000]


@pytest.mark.parametrize("body", UNREADABLE)
async def test_an_unreadable_frame_is_not_relayed(body):
    with pytest.raises(ConnectionLostError, match="could not be read"):
        await rewriting.edit_result(frame_reply(body), rewriting.hide_tools(hides_b))
    stream = Reply(status=200, headers=sse.HEADERS, chunks=chunks(sse.build_event(body)))
    with pytest.raises(ConnectionLostError, match="could not be read"):
        await read_body(await rewriting.edit_result(stream, rewriting.hide_tools(hides_b)))


async def test_a_null_list_from_go_passes_unchanged():
    body = b'{"jsonrpc":"2.0","id":1,"result":{"tools":null}}'
    edits = (
        rewriting.report_tools(lambda _: None),
        rewriting.hide_tools(hides_b),
        rewriting.annotate_tools(hides_b),
    )
    assert await read_body(await rewriting.edit_result(frame_reply(body), *edits)) == body


async def test_a_401_for_the_gateways_credentials_is_not_relayed():
    with pytest.raises(rewriting.CredentialsRefusedError):
        rewriting.filter_reply(
            Reply(status=401, headers={"WWW-Authenticate": "Bearer resource_metadata=..."})
        )


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_an_error(status):
    with pytest.raises(rewriting.RedirectedError):
        rewriting.filter_reply(Reply(status=status, headers={"Location": "http://elsewhere"}))


async def test_a_list_change_is_noticed_however_the_chunks_are_split():
    seen = []
    event = b'data: {"method":"notifications/tools/list_changed"}\n\n'
    for cut in range(len(event)):
        reply = Reply(
            status=200, headers={"content-type": "text/event-stream"}, chunks=chunks(event[:cut], event[cut:])
        )
        assert await read_body(rewriting.watch_for_changes(reply, lambda: seen.append(1))) == event
    assert len(seen) == len(event)
