"""Exchanges as a client of Streamable HTTP does them: sessions that go, streams that end early, answers that are none."""

import asyncio
import json
from dataclasses import replace

import pytest

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
    """A server of sessions, which it can forget; it writes down what it is asked."""

    def __init__(self):
        self.known = set()
        self.seen = []
        self.down = False
        self.refuses = False

    async def __call__(self, verb, body, headers):
        session = headers.get("mcp-session-id")
        frame = json.loads(body) if body else {}
        await asyncio.sleep(0)  # so that exchanges run beside each other
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


async def say(conversation, frame):
    return [json.loads(data) async for data in conversation.send(frames.decode(line(frame)), line(frame))]


async def opened(exchange):
    conversation = GatewayClient(exchange, {})
    await say(conversation, INITIALIZE)
    assert conversation.session is None
    await say(conversation, INITIALIZED)
    return conversation


async def test_a_session_that_is_gone_is_opened_again_once_for_all_who_find_it_gone():
    server = Server()
    conversation = await opened(server)
    server.known.clear()
    answers = await asyncio.gather(*(say(conversation, request(number)) for number in range(1, 4)))
    assert answers == [[result(number, session="s2")] for number in range(1, 4)]
    assert conversation.session == "s2"
    assert [entry for entry in server.seen if entry[1] in {"initialize", "notifications/initialized"}] == [
        ("POST", "initialize", None),
        ("POST", "notifications/initialized", "s1"),
        ("POST", "initialize", None),
        ("POST", "notifications/initialized", "s2"),
    ]


async def test_while_it_cannot_be_opened_again_the_client_is_told_and_later_it_can():
    server = Server()
    conversation = await opened(server)
    server.known.clear()
    server.down = True
    with pytest.raises(NotSentError):
        await say(conversation, request())
    server.down = False
    assert await say(conversation, request()) == [result(1, session="s2")]


async def test_a_server_that_opens_no_session_again_answers_the_request_itself():
    server = Server()
    conversation = await opened(server)
    server.known.clear()
    server.refuses = True
    [answer] = await say(conversation, request())
    assert (answer["id"], answer["error"]["message"]) == (1, "Session not found.")


async def test_the_revision_is_the_one_that_the_last_initialize_agreed_on():
    seen = []

    async def exchange(verb, body, headers):
        seen.append(headers.get("mcp-protocol-version"))
        frame = json.loads(body)
        revision = frame["params"].get("protocolVersion", "of a tool's result")
        return frame_reply(line(result(frame["id"], protocolVersion=revision)))

    conversation = GatewayClient(exchange, {})
    older = {**INITIALIZE, "params": {"protocolVersion": "2025-06-18"}}
    for frame in (request(), INITIALIZE, request(), older, request()):
        await say(conversation, frame)
    assert seen == [None, None, "2025-11-25", "2025-11-25", "2025-06-18"]


@pytest.mark.parametrize("answer", [{"protocolVersion": 5}, {}])
async def test_an_answer_that_agrees_on_no_revision_is_passed_on(answer):
    conversation = GatewayClient(answering(frame_reply(line(result(0, **answer)))), {})
    assert await say(conversation, INITIALIZE) == [result(0, **answer)]


async def test_a_404_outside_of_a_session_is_the_answer():
    server = Server()
    [answer] = await say(GatewayClient(server, {}), request())
    assert (answer["id"], answer["error"]["message"]) == (1, "Session not found.")
    assert len(server.seen) == 1


async def test_the_session_is_ended_and_one_that_is_gone_needs_no_end():
    server = Server()
    conversation = await opened(server)
    await conversation.close()
    assert server.seen[-1] == ("DELETE", None, "s1")
    server.down = True
    await conversation.close()


def answering(*replies):
    """An exchange that gives these replies one after the other and writes down the headers it saw."""
    left = list(replies)
    seen = []

    async def exchange(verb, body, headers):
        seen.append((verb, headers.get("last-event-id")))
        return left.pop(0)

    exchange.seen = seen
    return exchange


PRIMING = b"id: e1\nretry: 0\ndata: \n\n"


async def test_a_stream_that_ends_before_its_answer_is_taken_up_again():
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
    exchange = answering(
        stream(PRIMING, note),
        stream(b"id: e2\ndata: \n\n", ConnectionLostError()),
        stream(result(1, ok=True)),
    )
    assert await say(GatewayClient(exchange, {}), request()) == [note, result(1, ok=True)]
    assert exchange.seen == [("POST", None), ("GET", "e1"), ("GET", "e2")]


async def test_a_stream_that_cannot_be_taken_up_again_is_a_cut():
    for replies in (
        [stream()],
        [stream(result(2))],
        [stream(result("1"))],
        [stream(PRIMING), *(stream() for _ in range(4))],
    ):
        with pytest.raises(ConnectionLostError, match="without a result"):
            await say(GatewayClient(answering(*replies), {}), request())
    with pytest.raises(ConnectionLostError, match="broke"):
        await say(GatewayClient(answering(stream(ConnectionLostError())), {}), request())


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"[1]", b'{"a":' + b"[" * 100_000])
async def test_an_answer_that_is_no_frame_is_told_as_an_error_and_not_passed_on(body):
    with pytest.raises(ConnectionLostError, match="HTTP status 502"):
        await say(GatewayClient(answering(frame_reply(body, status=502)), {}), request())
    assert await say(GatewayClient(answering(frame_reply(body, status=502)), {}), INITIALIZED) == []


async def test_events_that_are_no_frames_are_left_out():
    exchange = answering(stream(b"data: noise\n\n", result(1)))
    assert await say(GatewayClient(exchange, {}), request()) == [result(1)]


async def test_an_error_for_nobody_goes_to_who_asked():
    exchange = answering(frame_reply(frames.build_error(None, -32000, "no"), status=401))
    assert await say(GatewayClient(exchange, {}), request("x")) == [
        {"jsonrpc": "2.0", "id": "x", "error": {"code": -32000, "message": "no"}}
    ]


async def test_a_notification_gets_no_answer_even_when_it_is_refused():
    refused = frame_reply(frames.build_error(None, -32000, "This token is not known."), status=401)
    assert await say(GatewayClient(answering(refused), {}), INITIALIZED) == []


async def test_a_request_of_the_servers_with_the_same_id_is_no_answer():
    question = request(1, "roots/list")
    exchange = answering(stream(question, result(1)))
    assert await say(GatewayClient(exchange, {}), request()) == [question, result(1)]


async def test_a_server_with_nothing_to_say_of_its_own_accord_is_not_listened_to():
    note = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    exchange = answering(Reply(status=405), frame_reply(b"{}"), stream(note))
    conversation = GatewayClient(exchange, {})
    heard = [[json.loads(data) async for data in conversation.listen()] for _ in range(3)]
    assert heard == [[], [], [note]]


def held(*events, name="hold_1"):
    """The stream of a call that the gateway holds."""
    return replace(stream(*events), headers={**sse.HEADERS, "Okayed-Hold": name})


CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "arguments": {}}}


class Gateway:
    """A gateway that does this, one after the other; the last for ever."""

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


async def test_a_held_call_is_asked_for_again_by_its_id_until_the_gateway_is_back():
    gateway = Gateway(
        held(sse.build_comment("waiting"), ConnectionLostError()), NotSentError(), ConnectionLostError(), frame_reply(b"", status=503),
        held(), held(result(1, ok=True)),
    )  # fmt: skip
    assert await say(patient(gateway), CALL) == [result(1, ok=True)]
    assert gateway.asked == [("POST", None), *([("POST", "hold_1")] * 5)]


async def test_a_held_call_whose_gateway_stays_away_ends_with_what_to_do():
    gateway = Gateway(held(ConnectionLostError()), NotSentError())
    with pytest.raises(
        ConnectionLostError, match="Make the same call again, with the same arguments: it runs at most once"
    ):
        await say(patient(gateway, retry_for=0.0), CALL)


async def test_an_answer_that_is_too_long_is_not_asked_for_again():
    gateway = Gateway(held(ResponseTooLargeError()))
    with pytest.raises(ResponseTooLargeError):
        await say(patient(gateway), CALL)
    assert len(gateway.asked) == 1


async def test_a_held_call_that_the_gateway_does_not_know_any_more_is_answered_with_that():
    unknown = frame_reply(frames.build_error(1, -32001, "not known"), status=404)
    gateway = Gateway(held(ConnectionLostError()), unknown)
    assert await say(patient(gateway), CALL) == [
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32001, "message": "not known"}}
    ]


def page(status):
    """An answer of something else at the gateway's address, such as a proxy."""
    return Reply(status=status, headers={"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("answer", "retry_for", "told"),
    [(page(403), 0.05, "Make the same call again"), (frame_reply(b'{"detail": "no"}', status=403), 5.0, "403, ended without a result")],
)  # fmt: skip
async def test_what_is_no_answer_at_all_is_not_asked_for_without_end(answer, retry_for, told):
    async with asyncio.timeout(HANG):
        with pytest.raises(ConnectionLostError, match=told):
            await say(patient(Gateway(held(ConnectionLostError()), answer), retry_for=retry_for), CALL)
