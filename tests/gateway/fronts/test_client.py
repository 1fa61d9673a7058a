"""The gateway's client: lost sessions, streams that end early, and answers that are not frames."""

import asyncio
import json

import pytest
from msgspec.structs import replace

from gateway.errors import ConnectionLostError, NotSentError, ResponseTooLargeError
from gateway.fronts.client import GatewayClient
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, sse
from hang import HANG

INITIALIZE = {
    "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}},
}  # fmt: skip
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def line(frame):
    return json.dumps(frame).encode()


def request(request_id=1, method="tools/list"):
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {}}


def result(request_id, **value):
    return {"jsonrpc": "2.0", "id": request_id, "result": value}


def stream(*events):
    async def chunks():
        for one in events:
            if isinstance(one, Exception):
                raise one
            yield one if isinstance(one, bytes) else sse.build_event(line(one))

    return Reply(status=200, headers=sse.HEADERS, chunks=chunks())


class Server:
    """A server with sessions, which it can forget; it records its requests."""

    def __init__(self):
        self.known = set()
        self.seen = []
        self.down = False
        self.refuses = False

    async def __call__(self, verb, body, headers):
        session = headers.get("mcp-session-id")
        frame = json.loads(body) if body else {}
        await asyncio.sleep(0)  # so that exchanges run concurrently
        self.seen.append((verb, frame.get("method"), session))
        if self.down:
            raise NotSentError
        if frame.get("method") == "initialize" and self.refuses:
            return frame_reply(frames.build_error(frame["id"], -32603, "no"), status=502)
        if frame.get("method") == "initialize":
            made = f"s{sum(method == 'initialize' for _, method, _ in self.seen)}"
            self.known.add(made)
            answer = line(result(frame["id"], protocolVersion="2025-11-25"))
            return frame_reply(answer, headers={"Mcp-Session-Id": made})
        if session not in self.known:
            return frame_reply(frames.build_error(None, -32001, "Session not found."), status=404)
        return frame_reply(line(result(frame["id"], session=session))) if "id" in frame else Reply(status=202)


async def send_frame(client, frame):
    return [json.loads(data) async for data in client.send(frames.decode(line(frame)), line(frame))]


async def open_client(exchange):
    client = GatewayClient(exchange, {})
    await send_frame(client, INITIALIZE)
    assert client.session is None
    await send_frame(client, INITIALIZED)
    return client


async def test_a_lost_session_is_reopened_once_for_all_frames():
    server = Server()
    client = await open_client(server)
    server.known.clear()
    answers = await asyncio.gather(*(send_frame(client, request(number)) for number in range(1, 4)))
    assert answers == [[result(number, session="s2")] for number in range(1, 4)]
    assert client.session == "s2"
    assert [entry for entry in server.seen if entry[1] in {"initialize", "notifications/initialized"}] == [
        ("POST", "initialize", None),
        ("POST", "notifications/initialized", "s1"),
        ("POST", "initialize", None),
        ("POST", "notifications/initialized", "s2"),
    ]


async def test_a_session_that_cannot_be_reopened_gets_errors_until_it_can():
    server = Server()
    client = await open_client(server)
    server.known.clear()
    server.down = True
    with pytest.raises(NotSentError):
        await send_frame(client, request())
    server.down = False
    assert await send_frame(client, request()) == [result(1, session="s2")]


async def test_a_server_without_a_new_session_answers_the_request_itself():
    server = Server()
    client = await open_client(server)
    server.known.clear()
    server.refuses = True
    [answer] = await send_frame(client, request())
    assert (answer["id"], answer["error"]["message"]) == (1, "Session not found.")


async def test_the_revision_is_the_one_that_the_last_initialize_agreed_on():
    seen = []

    async def exchange(verb, body, headers):
        seen.append(headers.get("mcp-protocol-version"))
        frame = json.loads(body)
        revision = frame["params"].get("protocolVersion", "of a tool's result")
        return frame_reply(line(result(frame["id"], protocolVersion=revision)))

    client = GatewayClient(exchange, {})
    older = {**INITIALIZE, "params": {"protocolVersion": "2025-06-18"}}
    for frame in (request(), INITIALIZE, request(), older, request()):
        await send_frame(client, frame)
    assert seen == [None, None, "2025-11-25", "2025-11-25", "2025-06-18"]


@pytest.mark.parametrize("answer", [{"protocolVersion": 5}, {}])
async def test_an_initialize_response_without_a_revision_is_passed_on(answer):
    client = GatewayClient(send_replies(frame_reply(line(result(0, **answer)))), {})
    assert await send_frame(client, INITIALIZE) == [result(0, **answer)]


async def test_a_404_outside_a_session_is_the_answer():
    server = Server()
    [answer] = await send_frame(GatewayClient(server, {}), request())
    assert (answer["id"], answer["error"]["message"]) == (1, "Session not found.")
    assert len(server.seen) == 1


async def test_the_session_is_closed_unless_it_is_already_lost():
    server = Server()
    client = await open_client(server)
    await client.close()
    assert server.seen[-1] == ("DELETE", None, "s1")
    server.down = True
    await client.close()


def send_replies(*replies):
    """A `Send` that returns these replies in order, and records the request headers."""
    left = list(replies)
    seen = []

    async def exchange(verb, body, headers):
        seen.append((verb, headers.get("last-event-id")))
        return left.pop(0)

    exchange.seen = seen
    return exchange


PRIMING = b"id: e1\nretry: 0\ndata: \n\n"


async def test_a_stream_that_ends_before_its_response_is_resumed():
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
    exchange = send_replies(
        stream(PRIMING, note),
        stream(b"id: e2\ndata: \n\n", ConnectionLostError()),
        stream(result(1, ok=True)),
    )
    assert await send_frame(GatewayClient(exchange, {}), request()) == [note, result(1, ok=True)]
    assert exchange.seen == [("POST", None), ("GET", "e1"), ("GET", "e2")]


async def test_a_stream_that_cannot_be_resumed_is_a_lost_connection():
    for replies in (
        [stream()],
        [stream(result(2))],
        [stream(result("1"))],
        [stream(PRIMING), *(stream() for _ in range(4))],
    ):
        with pytest.raises(ConnectionLostError, match="without a result"):
            await send_frame(GatewayClient(send_replies(*replies), {}), request())
    with pytest.raises(ConnectionLostError, match="broke"):
        await send_frame(GatewayClient(send_replies(stream(ConnectionLostError())), {}), request())


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"[1]", b'{"a":' + b"[" * 100_000])
async def test_an_answer_that_is_not_a_frame_becomes_an_error(body):
    with pytest.raises(ConnectionLostError, match="HTTP status 502"):
        await send_frame(GatewayClient(send_replies(frame_reply(body, status=502)), {}), request())
    assert await send_frame(GatewayClient(send_replies(frame_reply(body, status=502)), {}), INITIALIZED) == []


async def test_events_that_are_not_frames_are_dropped():
    exchange = send_replies(stream(b"data: noise\n\n", result(1)))
    assert await send_frame(GatewayClient(exchange, {}), request()) == [result(1)]


async def test_an_error_without_an_id_answers_the_request():
    exchange = send_replies(frame_reply(frames.build_error(None, -32000, "no"), status=401))
    assert await send_frame(GatewayClient(exchange, {}), request("x")) == [
        {"jsonrpc": "2.0", "id": "x", "error": {"code": -32000, "message": "no"}}
    ]


async def test_a_refused_notification_gets_no_answer():
    refused = frame_reply(frames.build_error(None, -32000, "This token is not known."), status=401)
    assert await send_frame(GatewayClient(send_replies(refused), {}), INITIALIZED) == []


async def test_a_server_request_with_the_same_id_is_not_the_response():
    question = request(1, "roots/list")
    exchange = send_replies(stream(question, result(1)))
    assert await send_frame(GatewayClient(exchange, {}), request()) == [question, result(1)]


async def test_a_server_without_its_own_stream_is_not_listened_to():
    note = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    exchange = send_replies(Reply(status=405), frame_reply(b"{}"), stream(note))
    client = GatewayClient(exchange, {})
    heard = [[json.loads(data) async for data in client.listen()] for _ in range(3)]
    assert heard == [[], [], [note]]


def held(*events, name="hold_1"):
    """The stream of a call that the gateway holds."""
    return replace(stream(*events), headers={**sse.HEADERS, "Okayed-Hold": name})


CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "arguments": {}}}


class Gateway:
    """A gateway with these reactions, in order; the last one repeats."""

    def __init__(self, *does):
        self.does = list(does)
        self.asked = []

    async def __call__(self, verb, body, headers):
        self.asked.append((verb, headers.get("okayed-hold")))
        does = self.does.pop(0) if len(self.does) > 1 else self.does[0]
        if isinstance(does, Exception):
            raise does
        return does


def patient(gateway, **more):
    return GatewayClient(gateway, {}, **{"retry_for": 5.0, "retry_pause": 0.0, **more})


async def test_a_held_call_is_requested_by_its_id_until_the_gateway_is_back():
    gateway = Gateway(
        held(sse.build_comment("waiting"), ConnectionLostError()), NotSentError(), ConnectionLostError(), frame_reply(b"", status=503),
        held(), held(result(1, ok=True)),
    )  # fmt: skip
    assert await send_frame(patient(gateway), CALL) == [result(1, ok=True)]
    assert gateway.asked == [("POST", None), *([("POST", "hold_1")] * 5)]


async def test_a_held_call_whose_gateway_stays_away_ends_with_a_remedy():
    gateway = Gateway(held(ConnectionLostError()), NotSentError())
    with pytest.raises(
        ConnectionLostError, match="Make the same call again, with the same arguments: it runs at most once"
    ):
        await send_frame(patient(gateway, retry_for=0.0), CALL)


async def test_an_answer_that_is_too_large_is_not_requested_again():
    gateway = Gateway(held(ResponseTooLargeError()))
    with pytest.raises(ResponseTooLargeError):
        await send_frame(patient(gateway), CALL)
    assert len(gateway.asked) == 1


async def test_an_unknown_held_call_is_an_error_that_says_so():
    unknown = frame_reply(frames.build_error(1, -32001, "not known"), status=404)
    gateway = Gateway(held(ConnectionLostError()), unknown)
    assert await send_frame(patient(gateway), CALL) == [
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32001, "message": "not known"}}
    ]


def page(status):
    """An answer from another program at the gateway's address, such as a proxy."""
    return Reply(status=status, headers={"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("answer", "retry_for", "told"),
    [(page(403), 0.05, "Make the same call again"), (frame_reply(b'{"detail": "no"}', status=403), 5.0, "403, ended without a result")],
)  # fmt: skip
async def test_a_held_call_without_an_answer_is_not_requested_forever(answer, retry_for, told):
    async with asyncio.timeout(HANG):
        with pytest.raises(ConnectionLostError, match=told):
            await send_frame(patient(Gateway(held(ConnectionLostError()), answer), retry_for=retry_for), CALL)
