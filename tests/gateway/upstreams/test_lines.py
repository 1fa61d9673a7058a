"""Lines: a POST on an idle connection without a task, through each wrapper of an upstream."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from aiohttp import web

from gateway.errors import ConnectionLostError, NotSentError
from gateway.relay.reopening import ReopeningUpstream
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http import HttpUpstream
from gateway.upstreams.http1.pool import ConnectionPool
from gateway.upstreams.oauth import ClientCredentials, OAuthClient
from gateway.upstreams.replaceable import ReplaceableUpstream
from gateway.upstreams.reply import Reply, read_body
from gateway.upstreams.requests import NOT_ALLOWED, RequestFilter
from gateways import call
from hang import HANG
from recording_server import RecordingServer

CALL = json.dumps(call("get_note")).encode()
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


@pytest.fixture
async def pool():
    async with ConnectionPool(1) as pool:
        yield pool


async def posted(line, body=CALL, headers=None):
    """Post on a line; returns what it receives, once."""
    received = asyncio.get_running_loop().create_future()
    line.post(body, headers or {}, received.set_result)
    async with asyncio.timeout(HANG):
        return await received


async def warm(upstream):
    """Leave one idle connection in the pool."""
    reply = await upstream.send("POST", PING, {})
    await read_body(reply)
    reply.close()


async def test_a_line_is_an_idle_connection_and_none_without_one(pool):
    async with RecordingServer() as recorder:
        upstream = HttpUpstream(recorder.url, FixedCredentials(), pool)
        assert upstream.line() is None
        await warm(upstream)
        line = upstream.line()
        assert upstream.line() is None  # it is reserved
        line.release()
        line = upstream.line()
        reply = await posted(line, headers={"mcp-session-id": "s"})
        assert (reply.status, json.loads(reply.body)["id"]) == (200, 1)
        assert recorder.received[-1].headers["mcp-session-id"] == "s"
        assert upstream.line() is not None  # the complete answer gave it back


async def test_an_abandoned_line_closes_its_connection_and_receives_nothing(pool):
    gone, received = asyncio.Event(), []

    async def wait(request, frame):
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    async with RecordingServer(on_call=wait) as recorder:
        upstream = HttpUpstream(recorder.url, FixedCredentials(), pool)
        await warm(upstream)
        line = upstream.line()
        line.post(CALL, {}, received.append)
        await recorder.called()
        connection = line._connection
        line.abandon()
        assert not connection.is_open
        await warm(upstream)  # its place in the pool is free again
        assert received == []


async def test_abandoning_a_line_after_its_answer_leaves_the_next_exchange_alone(pool):
    async with RecordingServer() as recorder:
        upstream = HttpUpstream(recorder.url, FixedCredentials(), pool)
        await warm(upstream)
        first = upstream.line()
        await posted(first)
        second = upstream.line()
        received = asyncio.ensure_future(posted(second))
        await asyncio.sleep(0)
        first.abandon()
        assert (await received).status == 200


async def test_a_line_whose_server_left_sends_nothing_and_says_so(pool):
    async with RecordingServer() as recorder:
        upstream = HttpUpstream(recorder.url, FixedCredentials(), pool)
        await warm(upstream)
        line = upstream.line()
        line._connection._transport.abort()
        assert isinstance(await posted(line), NotSentError)


async def test_a_header_with_a_line_break_sends_nothing_and_frees_the_connection(pool):
    async with RecordingServer() as recorder:
        upstream = HttpUpstream(recorder.url, FixedCredentials(), pool)
        await warm(upstream)
        assert isinstance(await posted(upstream.line(), headers={"mcp-name": "a\r\nX: y"}), NotSentError)
        assert len(recorder.received) == 1
        assert upstream.line() is not None


async def test_credentials_that_cannot_be_sent_have_no_line(pool):
    async with RecordingServer() as recorder:
        await warm(HttpUpstream(recorder.url, FixedCredentials(), pool))
        upstream = HttpUpstream(recorder.url, FixedCredentials({"x": "a\r\nb"}), pool)
        assert upstream.line() is None
        with pytest.raises(NotSentError, match="line break"):
            await upstream.send("POST", PING, {})
        assert len(recorder.received) == 1


async def test_an_answer_of_401_is_reported_to_the_credentials(pool):
    refused = []

    class Refused(FixedCredentials):
        def mark_refused(self, headers):
            refused.append(headers)

    async def refuse(request, frame):
        return web.Response(status=401)

    async with RecordingServer(on_call=refuse) as recorder:
        upstream = HttpUpstream(recorder.url, Refused({"Authorization": "Bearer old"}), pool)
        await warm(upstream)
        assert (await posted(upstream.line())).status == 401
    assert refused == [{"Authorization": "Bearer old"}]


async def test_a_line_needs_a_token_that_is_valid_now(pool):
    now = 0.0
    client = OAuthClient(token_url="http://x", id="i", secret="s", resource="r")
    credentials = ClientCredentials(client, None, lambda: now)

    async def request_token():
        return {"access_token": "a", "token_type": "Bearer", "expires_in": 100}

    credentials._request_token = request_token
    async with RecordingServer() as recorder:
        upstream = HttpUpstream(recorder.url, credentials, pool)
        assert credentials.current() is None
        await warm(upstream)
        reply = await posted(upstream.line())
        assert recorder.received[-1].headers["authorization"] == "Bearer a"
        assert reply.status == 200
        now = 99.0
        assert upstream.line() is None
        await warm(upstream)
        credentials.mark_refused(await credentials.headers())
        assert upstream.line() is None


async def test_a_stream_and_a_chunked_answer_have_chunks(pool):
    end = asyncio.Event()

    async def stream(request, frame):
        chunked = frame["params"]["name"] == "get_note"
        response = web.StreamResponse(
            headers={"Content-Type": "application/json" if chunked else "text/event-stream"}
        )
        await response.prepare(request)
        await response.write(b"{}" if chunked else b"data: {}\n\n")
        await end.wait()
        return response

    async with RecordingServer(on_call=stream) as recorder:
        upstream = HttpUpstream(recorder.url, FixedCredentials(), pool)
        await warm(upstream)
        for tool, body in (("get_note", b"{}"), ("create_note", b"data: {}\n\n")):
            end.clear()
            reply = await posted(upstream.line(), json.dumps(call(tool)).encode())
            assert reply.body is None
            assert upstream.line() is None
            end.set()
            assert await read_body(reply) == body
        assert upstream.line() is not None


class FakeLine:
    """A line that receives one answer at once."""

    def __init__(self, answer):
        self.answer = answer
        self.ended = []

    def post(self, body, headers, receive):
        self.sent = (body, headers)
        receive(self.answer)

    def release(self):
        self.ended.append("released")

    def abandon(self):
        self.ended.append("abandoned")


def reply(body, *, status=200, kind="application/json"):
    return Reply(status=status, headers={"content-type": kind}, body=body)


def over(answer):
    """An upstream that has one line with this answer, or no line."""
    line = FakeLine(answer) if answer is not None else None
    return SimpleNamespace(line=lambda: line)


def sessions(inner, **session):
    session = SimpleNamespace(**{"upstream_id": "", "answered_at": 0.0, **session})
    return ReopeningUpstream(
        inner=inner, session=session, id="client", on_reopened=lambda: None, clock=lambda: 7.0
    )


WRAPPERS = [ReplaceableUpstream, lambda inner: RequestFilter("notes", inner, []), sessions]


@pytest.mark.parametrize("wrap", WRAPPERS)
async def test_a_wrapper_has_a_line_if_its_inner_upstream_has_one(wrap):
    assert wrap(over(None)).line() is None
    inner = over(reply(b'{"id":1}'))
    line = wrap(inner).line()
    assert (await posted(line)).body == b'{"id":1}'
    line.release()
    line.abandon()
    assert inner.line().ended == ["released", "abandoned"]


@pytest.mark.parametrize("wrap", WRAPPERS)
async def test_a_wrapper_passes_an_error_on(wrap):
    error = ConnectionLostError()
    assert await posted(wrap(over(error)).line()) is error


ASKING = b'{"jsonrpc":"2.0","id":1,"result":{"inputRequests":{"a":{"method":"roots/list"}}}}'
REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"roots/list"}'


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (reply(b"", status=202), b""),
        (reply(b"text", status=202), b""),
        (reply(b"no", status=500, kind="text/plain"), b"no"),
        (reply(b"no", kind="text/plain"), b""),
        (reply(b"  "), b"  "),
    ],
)
async def test_a_filtered_line_treats_an_answer_as_send_does(answer, passes):
    async def send(verb, body, headers):
        return answer

    inner = over(answer)
    inner.send = send
    upstream = RequestFilter("notes", inner, [])
    assert (await posted(upstream.line())).body == passes
    assert await read_body(await upstream.send("POST", CALL, {})) == passes


@pytest.mark.parametrize("body", [ASKING, ASKING.replace(b"inputR", b"\\u0069nputR"), b" " + ASKING])
async def test_a_filtered_line_refuses_requests_that_are_not_allowed(body):
    answer = await posted(RequestFilter("notes", over(reply(body)), []).line())
    assert json.loads(answer.body)["error"]["message"] == NOT_ALLOWED
    assert (await posted(RequestFilter("notes", over(reply(body)), ["roots"]).line())).body == body
    for bad in (REQUEST, b"method"):
        assert isinstance(
            await posted(RequestFilter("notes", over(reply(bad)), []).line()), ConnectionLostError
        )


async def test_a_filtered_line_filters_streams_and_long_answers():
    async def chunks(data):
        yield data

    def arriving(data, kind):
        return Reply(status=200, headers={"content-type": kind}, chunks=chunks(data))

    events = b"data: " + ASKING + b"\n\n"
    streamed = await posted(RequestFilter("n", over(arriving(events, "text/event-stream")), []).line())
    assert NOT_ALLOWED.encode() in await read_body(streamed)
    long = await posted(RequestFilter("n", over(arriving(ASKING, "application/json")), []).line())
    assert NOT_ALLOWED.encode() in await read_body(long)


async def test_the_line_of_a_session_names_the_current_session_and_notes_its_answers():
    inner = over(reply(b"{}"))
    upstream = sessions(inner, upstream_id="new")
    await posted(upstream.line(), headers={"mcp-session-id": "client"})
    assert inner.line().sent[1] == {"mcp-session-id": "new"}
    assert upstream.session.answered_at == 7.0


@pytest.mark.parametrize(("answer", "session"), [(reply(b"", status=404), "client"), (reply(b"{}"), "other")])
async def test_only_a_good_answer_in_the_session_shows_that_it_exists(answer, session):
    upstream = sessions(over(answer))
    await posted(upstream.line(), headers={"mcp-session-id": session})
    assert upstream.session.answered_at == 0.0
