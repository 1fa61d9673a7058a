"""HTTP+SSE servers as Streamable HTTP: the stream is the session, and doubt is distinguished from refusal."""

import asyncio
import json
import logging

import pytest
from mcp import Client

from gateway import errors
from gateway.errors import ConnectionLostError, NotSentError, UnknownSessionError, UseInitializeError
from gateway.relay.rewriting import CredentialsRefusedError, RedirectedError, filter_reply
from gateway.tools.discovery import list_tools
from gateway.upstreams import sessions
from gateway.upstreams import sse as upstream_sse
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http1.pool import ConnectionPool
from gateway.upstreams.reply import read_body
from gateway.upstreams.sse import SseServer, SseUpstream
from gateway.wire import sse
from gateways import call, last_frame, running, text
from hang import HANG
from replacing import replace
from sse_server import MisbehavingSseServer, sdk_server


def frame(method: str, params: dict | None = None, id=1) -> bytes:
    named = {} if id is None else {"id": id}
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params or {}, **named}).encode()


def calling(tool: str, id=1, **params) -> bytes:
    return frame("tools/call", {"name": tool, "arguments": {}, **params}, id)


async def frames(reply) -> list[dict]:
    try:
        if reply.streams:
            return [json.loads(event.data) async for event in sse.split_events(reply.chunks) if event.data]
        return [json.loads(await read_body(reply))]
    finally:
        reply.close()


class Server(SseUpstream):
    """An upstream with a session."""

    async def opened(self) -> dict:
        reply = await self.send("POST", frame("initialize", {"protocolVersion": "2024-11-05"}, 0), {})
        assert [answer["id"] for answer in await frames(reply)] == [0]
        return {"Mcp-Session-Id": reply.header("mcp-session-id")}

    async def called(self, tool: str, headers: dict, id=1, **params) -> dict:
        async with asyncio.timeout(HANG):
            return (await frames(await self.send("POST", calling(tool, id, **params), headers)))[-1]


@pytest.fixture
async def http():
    async with ConnectionPool() as session:
        yield session


@pytest.fixture
async def nasty():
    async with MisbehavingSseServer() as server:
        yield server


def connected(http, nasty, **headers) -> Server:
    return Server(
        SseServer(name="n", url=nasty.url, credentials=FixedCredentials(headers), requests=http), lambda: 0.0
    )


@pytest.fixture
async def server(http, nasty):
    upstream = connected(http, nasty, Authorization="Bearer ours")
    yield upstream
    await upstream.close()


async def test_a_message_has_the_gateways_credentials_and_no_agent_headers(server, nasty):
    headers = await server.opened()
    await server.send("POST", frame("notifications/initialized", id=None), {**headers, "mcp-name": "x"})
    answer = await server.called("echo", headers, "mine")
    assert answer["id"] == "mine"
    assert [one["method"] for one in nasty.received] == [
        "initialize",
        "notifications/initialized",
        "tools/call",
    ]
    for sent in nasty.headers:
        assert sent.pop("authorization") == "Bearer ours"
        assert set(sent) <= {"host", "accept", "accept-encoding", "content-type", "content-length"}


async def test_clients_with_the_same_id_each_get_their_own_response(server):
    first, second = await server.opened(), await server.opened()
    assert first != second
    calls = [
        server.called("echo", headers, 1, _meta={"n": n}) for n, headers in enumerate([first, second, first])
    ]
    answers = await asyncio.gather(*calls)
    assert [answer["id"] for answer in answers] == [1, 1, 1]
    assert [json.loads(text(answer))["_meta"]["n"] for answer in answers] == [0, 1, 2]


async def test_progress_has_the_clients_own_token(server):
    headers = await server.opened()
    reply = await server.send("POST", calling("progress", 7, _meta={"progressToken": "mine"}), headers)
    progress, answer = await frames(reply)
    assert progress["params"]["progressToken"] == "mine"
    assert answer["id"] == 7


async def test_a_servers_request_is_answered_while_its_post_is_still_open(server):
    headers = await server.opened()
    async with asyncio.timeout(HANG):
        reply = await server.send("POST", calling("ask"), headers)
        events = sse.split_events(reply.chunks)
        question = json.loads((await anext(events)).data)
        assert (question["method"], question["id"]) == ("roots/list", "s1")
        said = json.dumps({"jsonrpc": "2.0", "id": "s1", "result": {"roots": []}}).encode()
        assert (await server.send("POST", said, headers)).status == 202
        assert text(json.loads((await anext(events)).data)) == "you said {'roots': []}"
    reply.close()


async def test_messages_outside_of_requests_arrive_on_the_servers_own_stream(server):
    headers = await server.opened()
    await server.called("announce", headers)
    stream = await server.send("GET", b"", headers)
    async with asyncio.timeout(HANG):
        event = await anext(sse.split_events(stream.chunks))
    assert json.loads(event.data)["method"] == "notifications/tools/list_changed"
    stream.close()


async def test_noise_on_the_stream_is_dropped(server, caplog):
    caplog.set_level(logging.INFO, "okayed.servers")
    assert text(await server.called("noise", await server.opened())) == "after the noise"
    assert caplog.text.count("not JSON-RPC") == 2
    assert "matches no pending request" in caplog.text


@pytest.mark.parametrize("way", ["cut", "end"])
async def test_a_broken_stream_leaves_doubt_and_loses_its_session(server, way):
    headers = await server.opened()
    other = await server.opened()
    with pytest.raises(ConnectionLostError):
        await server.called(way, headers)
    with pytest.raises(UnknownSessionError):
        await server.called("echo", headers)
    assert (await server.called("echo", other))["id"] == 1
    assert await server.opened()


async def test_a_broken_post_leaves_doubt(server):
    headers = await server.opened()
    with pytest.raises(ConnectionLostError):
        await server.called("cut_post", headers)
    assert (await server.called("echo", headers))["id"] == 1


async def test_an_unanswered_call_sends_signs_of_life_until_its_stream_breaks(server, nasty):
    was, sessions.QUIET = sessions.QUIET, 0.05
    try:
        headers = await server.opened()
        reply = await server.send("POST", calling("silence"), headers)
        assert reply.streams
        assert (await anext(reply.chunks)).startswith(b": waiting")
        nasty.opened["0"].transport.abort()
        with pytest.raises(ConnectionLostError):
            await frames(reply)
    finally:
        sessions.QUIET = was


async def test_deleting_a_session_closes_its_stream(server, nasty):
    headers = await server.opened()
    assert (await server.send("DELETE", b"", headers)).status == 200
    async with asyncio.timeout(HANG):
        await nasty.gone.wait()
    with pytest.raises(UnknownSessionError):
        await server.called("echo", headers)


async def test_a_session_that_ends_while_a_call_runs_leaves_doubt(server, nasty):
    headers = await server.opened()
    waiting = asyncio.ensure_future(server.called("silence", headers))
    async with asyncio.timeout(HANG):
        while not any(one.get("method") == "tools/call" for one in nasty.received):
            await asyncio.sleep(0)
        await server.send("DELETE", b"", headers)
        with pytest.raises(ConnectionLostError):
            await waiting


async def test_2026_clients_of_this_transport_must_send_initialize(server, nasty):
    with pytest.raises(UseInitializeError):
        await server.send("POST", calling("echo"), {"MCP-Protocol-Version": "2026-07-28"})
    assert nasty.headers == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://evil.example/messages",
        "https://127.0.0.1:{port}/messages",
        "//evil.example/messages",
        "http://127.0.0.1:1/messages",
        "http://127.0.0.1:{port}@evil.example/messages",
        "http://[/messages",
        "http://127.0.0.1:99999/messages",
        "file:///etc/passwd",
    ],
)
async def test_an_endpoint_of_another_origin_is_not_used(server, nasty, endpoint):
    nasty.endpoint = endpoint
    with pytest.raises(NotSentError, match="another origin"):
        await server.opened()
    assert nasty.received == []
    assert server.sessions == {}


async def test_an_endpoint_may_be_relative_or_absolute_and_gets_our_user(http, nasty):
    for endpoint in ("{path}", "http://127.0.0.1:{port}{path}", "http://them:theirs@127.0.0.1:{port}{path}"):
        nasty.endpoint = endpoint
        nasty.headers.clear()
        upstream = connected(http, nasty)
        await upstream.opened()
        await upstream.close()
        assert not any("authorization" in headers for headers in nasty.headers)


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_event": "message"},
        {"opens": 404},
        {"opens": 307},
        {"media_type": "application/json"},
    ],
)
async def test_a_server_with_another_transport_is_sent_nothing(server, nasty, wrong):
    for name, value in wrong.items():
        setattr(nasty, name, value)
    with pytest.raises(NotSentError):
        await server.opened()
    assert nasty.received == []


async def test_a_server_that_does_not_name_its_endpoint_in_time_is_sent_nothing(server, nasty):
    was, upstream_sse.CONNECT_TIMEOUT = upstream_sse.CONNECT_TIMEOUT, 0.05
    try:
        nasty.endpoint = None
        with pytest.raises(NotSentError, match="did not name"):
            await server.opened()
    finally:
        upstream_sse.CONNECT_TIMEOUT = was


async def test_a_stream_that_ends_before_its_endpoint_is_sent_nothing(http):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: x\n\n"
        )
        writer.close()

    raw = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{raw.sockets[0].getsockname()[1]}/sse"
    upstream = Server(
        SseServer(name="n", url=url, credentials=FixedCredentials(), requests=http), lambda: 0.0
    )
    with pytest.raises(NotSentError, match="did not name"):
        await upstream.opened()
    raw.close()


async def test_a_server_that_does_not_listen_is_sent_nothing(http):
    async with MisbehavingSseServer() as nasty:
        upstream = connected(http, nasty)
    with pytest.raises(NotSentError, match="could not be reached"):
        await upstream.opened()


async def test_a_server_that_stops_between_stream_and_post_is_sent_nothing(server, nasty):
    headers = await server.opened()
    session = server.sessions[headers["Mcp-Session-Id"]]
    async with MisbehavingSseServer() as gone:
        endpoint = session.connection._endpoint
        endpoint.address = replace(endpoint.address, port=int(gone.url.split(":")[2][:-4]))
    with pytest.raises(NotSentError, match="could not be reached"):
        await server.called("echo", headers)


async def test_refused_credentials_are_a_401_and_leave_no_session(server, nasty):
    nasty.authorization = "Bearer theirs"
    reply = await server.send("POST", frame("initialize", {}, 0), {})
    with pytest.raises(CredentialsRefusedError):
        filter_reply(reply)
    nasty.authorization = None
    headers = await server.opened()
    nasty.authorization = "Bearer theirs"
    assert (await server.send("POST", calling("echo"), headers)).status == 401


async def test_a_refused_handshake_closes_the_stream(server, nasty):
    nasty.posts = 403
    assert (await server.send("POST", frame("initialize", {}, 0), {})).status == 403
    assert server.sessions == {}
    async with asyncio.timeout(HANG):
        await nasty.gone.wait()


@pytest.mark.parametrize("status", [400, 404, 413, 500])
async def test_a_refused_message_keeps_the_servers_status(server, nasty, status):
    headers = await server.opened()
    nasty.posts = status
    assert (await server.send("POST", calling("echo"), headers)).status == status
    assert (await server.send("POST", frame("notifications/initialized", id=None), headers)).status == status


async def test_a_redirect_is_not_followed(server, nasty):
    headers = await server.opened()
    nasty.posts = 307
    with pytest.raises(RedirectedError):
        filter_reply(await server.send("POST", calling("echo"), headers))
    assert len(nasty.received) == 2


@pytest.mark.parametrize("error", [errors.UnknownSessionError, errors.BusyError, errors.UseInitializeError])
def test_errors_before_sending_are_not_sent_errors(error):
    assert issubclass(error, NotSentError)


# The SDK's own server and client.


async def test_the_catalogue_lists_the_tools_of_a_real_server(http):
    async with sdk_server() as url:
        upstream = Server(
            SseServer(name="n", url=url, credentials=FixedCredentials(), requests=http), lambda: 0.0
        )
        assert sorted(tool["name"] for tool in (await list_tools(upstream)).tools) == [
            "create_note",
            "get_note",
        ]
        assert upstream.sessions == {}
        await upstream.close()


async def test_an_sdk_client_lists_calls_and_waits_for_a_person_in_front_of_a_real_server():
    async with sdk_server() as url, running(server_options=f"url: '{url}', transport: sse") as gateway:
        async with asyncio.timeout(HANG), Client(gateway.url) as client:
            assert sorted(tool.name for tool in (await client.list_tools()).tools) == [
                "create_note",
                "get_note",
            ]
            allowed = await client.call_tool("get_note", {"name": "a"})
            assert allowed.content[0].text == "note a"
            waiting = asyncio.ensure_future(client.call_tool("create_note", {"name": "b"}))
            [held] = await gateway.held()
            await gateway.review(held)
            assert (await waiting).content[0].text == "created b, 1 so far"
        assert "hold.completed" in await gateway.kinds()


@pytest.mark.parametrize(("opens", "state"), [(200, "completed"), (503, "not_sent")])
async def test_an_approved_call_without_its_stream_runs_on_a_new_one_or_not_at_all(opens, state):
    async with (
        MisbehavingSseServer() as nasty,
        running(server_options=f"url: '{nasty.url}', transport: sse") as gateway,
    ):
        opening = {
            "jsonrpc": "2.0",
            "id": 0,
            "method": "initialize",
            "params": {"protocolVersion": "2024-11-05"},
        }
        async with await gateway.post(opening) as opened:
            session = {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]}
        agent = asyncio.ensure_future(gateway.post(call("write_note"), session))
        [held] = await gateway.held()
        upstream = gateway.gateway.proxy.settings.upstreams["notes"].inner
        async with asyncio.timeout(HANG):
            for request in nasty.opened.values():
                if request.transport is not None:
                    request.transport.abort()
            await upstream.sessions[session["Mcp-Session-Id"]].connection.ended.wait()
            nasty.opens = opens
            await gateway.review(held)
            answer = last_frame(await (await agent).read())
        assert (await gateway.gateway.store.get(held.id)).state == state
        assert ("wrote" in text(answer)) == (state == "completed")
        called = [one for one in nasty.received if one.get("method") == "tools/call"]
        assert len(called) == (state == "completed")
