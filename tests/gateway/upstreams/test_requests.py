"""Requests from servers pass only if `may_ask` allows them."""

import asyncio
import json

import pytest
from aiohttp import web

from gateway.errors import ConnectionLostError
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http import HttpUpstream
from gateway.upstreams.http1.address import parse_address
from gateway.upstreams.http1.pool import ConnectionPool
from gateway.upstreams.reply import read_body
from gateway.upstreams.requests import NOT_ALLOWED, RequestFilter
from gateway.wire import sse
from gateways import call, running
from recording_server import RecordingServer, result

ASKS = {
    "sampling": ("sampling/createMessage", {"messages": [], "maxTokens": 1}),
    "elicitation": (
        "elicitation/create",
        {"message": "Your password?", "requestedSchema": {"type": "object"}},
    ),
    "roots": ("roots/list", {}),
}
DONE = {"resultType": "complete", "content": []}


def streaming(*frames):
    """A server that sends these frames as events before its response."""

    async def serve(request, frame):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for one in (*frames, {"jsonrpc": "2.0", "id": frame["id"], "result": DONE}):
            await response.write(sse.build_event(one if isinstance(one, bytes) else json.dumps(one).encode()))
        return response

    return serve


def request_frame(method, params, request_id="s1"):
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


async def call_through(recorder, kinds):
    """Call a tool through an upstream with these kinds; returns the frames that a client gets."""
    async with ConnectionPool() as http:
        upstream = RequestFilter("notes", HttpUpstream(recorder.url, FixedCredentials(), http), kinds)
        body = json.dumps(call("get_note")).encode()
        reply = await upstream.send("POST", body, {"mcp-session-id": "s", "last-event-id": "7"})
        seen = [json.loads(event.data) async for event in sse.split_events(reply.chunks)]
        reply.close()
        await upstream.close()
    return seen


@pytest.mark.parametrize("kind", ASKS)
async def test_allowed_server_requests_pass(kind):
    async with RecordingServer(on_call=streaming(request_frame(*ASKS[kind]))) as recorder:
        asked, answer = await call_through(recorder, [kind])
    assert (asked["method"], answer["result"]) == (ASKS[kind][0], DONE)
    assert len(recorder.received) == 1


@pytest.mark.parametrize("kind", ASKS)
async def test_forbidden_server_requests_are_answered_for_the_client(kind, caplog):
    others = [name for name in ASKS if name != kind]
    async with RecordingServer(on_call=streaming(request_frame(*ASKS[kind]))) as recorder:
        [answer] = await call_through(recorder, others)
    assert answer["result"] == DONE
    told = recorder.received[1]
    assert told.frame == {"jsonrpc": "2.0", "id": "s1", "error": {"code": -32601, "message": NOT_ALLOWED}}
    assert told.headers["mcp-session-id"] == "s"
    assert "last-event-id" not in told.headers
    assert f"notes requested {ASKS[kind][0]}, which may_ask does not allow" in caplog.text


@pytest.mark.parametrize(
    "frame",
    [
        request_frame("x/other", {}),
        request_frame("sampling/createMessage", {}, request_id=0),
        json.dumps(request_frame("sampling/createMessage", {})).replace("method", "\\u006dethod").encode(),
        json.dumps(request_frame("sampling/createMessage", {}))
        .replace("sampling", "s\\u0061mpling")
        .encode(),
    ],
)
async def test_other_spellings_and_unknown_requests_do_not_pass(frame):
    async with RecordingServer(on_call=streaming(frame)) as recorder:
        assert [one.get("result") for one in await call_through(recorder, [])] == [DONE]
    assert recorder.received[1].frame["error"]["message"] == NOT_ALLOWED


async def test_notifications_pings_and_responses_always_pass():
    said = {
        "jsonrpc": "2.0",
        "method": "notifications/message",
        "params": {"level": "info", "data": "\u00e9 method"},
    }
    async with RecordingServer(on_call=streaming(said, request_frame("ping", {}))) as recorder:
        seen = await call_through(recorder, [])
    assert [one.get("method") for one in seen] == ["notifications/message", "ping", None]
    assert len(recorder.received) == 1


@pytest.mark.parametrize(
    "frame",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"sampling/createMessage"}',
        b'{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"',
    ],
)
async def test_an_ambiguous_frame_ends_the_stream(frame):
    async with RecordingServer(on_call=streaming(frame)) as recorder:
        with pytest.raises(ConnectionLostError):
            await call_through(recorder, [])


@pytest.mark.parametrize("lead", [b"\xef\xbb\xbf", b""])
async def test_a_byte_order_mark_does_not_hide_a_request(lead):
    async def serve(request, frame):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(
            lead + b"data: " + json.dumps(request_frame(*ASKS["sampling"])).encode() + b"\n\n"
        )
        await response.write(
            sse.build_event(json.dumps({"jsonrpc": "2.0", "id": 1, "result": DONE}).encode())
        )
        return response

    async with RecordingServer(on_call=serve) as recorder:
        assert [one.get("result") for one in await call_through(recorder, [])] == [DONE]
    assert recorder.received[1].frame["error"]["message"] == NOT_ALLOWED


REQUEST = json.dumps(request_frame(*ASKS["sampling"]))
NOT_ONE_ANSWER = [
    REQUEST.encode(),
    f" \n{REQUEST}".encode(),
    f"[{REQUEST}]".encode(),
    b"\xef\xbb\xbf" + REQUEST.encode(),
    REQUEST.encode("utf-16-le"),
    b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"sampling/createMessage","params":{}}',
    REQUEST.replace('"sampling/createMessage"', '["sampling/createMessage"]').encode(),
]


@pytest.mark.parametrize("body", NOT_ONE_ANSWER)
async def test_a_body_that_is_not_one_response_does_not_pass(body):
    async def serve(request, frame):
        return web.Response(body=body, content_type="application/json")

    async with RecordingServer(on_call=serve) as recorder, ConnectionPool() as http:
        upstream = RequestFilter("notes", HttpUpstream(recorder.url, FixedCredentials(), http), [])
        with pytest.raises(ConnectionLostError):
            await upstream.send("POST", json.dumps(call("get_note")).encode(), {})


@pytest.mark.parametrize("frame", [f"[{REQUEST}]".encode(), REQUEST.encode("utf-16-le"), b"null"])
async def test_an_event_that_is_not_one_object_ends_the_stream(frame):
    async with RecordingServer(on_call=streaming(frame)) as recorder:
        with pytest.raises(ConnectionLostError):
            await call_through(recorder, [])


ANSWER = json.dumps({"jsonrpc": "2.0", "id": 1, "result": DONE})


@pytest.mark.parametrize(
    ("status", "kind", "body", "crosses"),
    [
        (200, "application/json", ANSWER, ANSWER),
        (
            200,
            "application/json",
            json.dumps(request_frame("ping", {})),
            json.dumps(request_frame("ping", {})),
        ),
        (200, "text/plain", REQUEST, ""),
        (202, "text/plain", "Accepted", ""),
        (202, "application/json", "null", ""),
        (404, "text/plain", "Session not found", "Session not found"),
        (404, "application/json", ANSWER, ANSWER),
        (404, "application/json", "", ""),
    ],
)
async def test_other_bodies_pass_only_if_they_are_responses_or_error_texts(status, kind, body, crosses):
    async def serve(request, frame):
        return web.Response(status=status, text=body, content_type=kind)

    async with RecordingServer(on_call=serve) as recorder, ConnectionPool() as http:
        upstream = RequestFilter("notes", HttpUpstream(recorder.url, FixedCredentials(), http), [])
        reply = await upstream.send("POST", json.dumps(call("get_note")).encode(), {})
        assert (reply.status, await read_body(reply)) == (status, crosses.encode())
        reply.close()


async def test_a_refusal_that_cannot_be_sent_is_only_logged(caplog):
    async with (
        RecordingServer(on_call=streaming(request_frame(*ASKS["roots"]))) as recorder,
        ConnectionPool() as http,
    ):
        upstream = RequestFilter("notes", HttpUpstream(recorder.url, FixedCredentials(), http), [])
        reply = await upstream.send("POST", json.dumps(call("get_note")).encode(), {})
        upstream.inner._endpoint.address = parse_address("http://127.0.0.1:1/mcp")
        assert (
            json.loads([event async for event in sse.split_events(reply.chunks)][-1].data)["result"] == DONE
        )
        reply.close()
    assert "the refusal could not be sent" in caplog.text


def with_questions(*kinds, **more):
    """A server of 2026-07-28 that answers with inputRequests."""
    questions = {kind: {"method": ASKS[kind][0], "params": ASKS[kind][1]} for kind in kinds}

    async def serve(request, frame):
        return result(frame, {"resultType": "input_required", "inputRequests": questions, **more})

    return serve


CASES = [(["roots"], ["roots"], True), (["roots", "sampling"], ["roots"], False), (["sampling"], [], False)]


@pytest.mark.parametrize(("asked", "allowed", "crosses"), CASES)
@pytest.mark.parametrize("tool", ["get_note", "create_note"])
async def test_input_required_passes_only_with_allowed_requests(asked, allowed, crosses, tool):
    """For allowed and held calls alike."""
    declares = {"sampling": {}, "roots": {}}
    async with RecordingServer(on_call=with_questions(*asked)) as recorder:
        options = f"url: '{recorder.url}', may_ask: {allowed}"
        async with running(server_options=options) as gateway:
            answer = asyncio.ensure_future(
                gateway.ask("tools/call", {"name": tool, "arguments": {}}, declares=declares)
            )
            if tool == "create_note":
                [held] = await gateway.held()
                await gateway.review(held)
            said = (await answer).frames[-1]
    if crosses:
        assert said["result"]["inputRequests"].keys() == set(asked)
    else:
        assert said["error"] == {"code": -32603, "message": NOT_ALLOWED}


async def test_input_requests_without_a_method_do_not_pass():
    async def odd(request, frame):
        return result(frame, {"resultType": "input_required", "inputRequests": {"a": 1}})

    async with RecordingServer(on_call=odd) as recorder, ConnectionPool() as http:
        upstream = RequestFilter("notes", HttpUpstream(recorder.url, FixedCredentials(), http), [])
        reply = await upstream.send("POST", json.dumps(call("get_note")).encode(), {})
        assert json.loads(await read_body(reply))["error"]["message"] == NOT_ALLOWED
        reply.close()
