"""The agents' listener: hosts, origins, tokens and bodies."""

import asyncio
import hashlib
import io
import json

import aiohttp
import pytest
from aiohttp import web
from msgspec.structs import replace

from approvals.throttle import WINDOW
from gateway.app.serving import agent_hosts
from gateway.config.options import Config, PolicyOptions
from gateway.errors import ConnectionLostError
from gateway.fronts.endpoint import MAX_WRONG_TOKENS
from gateway.upstreams.reply import Reply, frame_reply
from gateways import call, running
from hang import HANG
from process import sha256
from recording_server import RecordingServer

AGENTS = f"agents: [{{name: ci, owner: alice, token_sha256: {sha256('ci-token')}}}, {{name: other, token_sha256: {sha256('other-token')}, servers: []}}]"
CI = {"Authorization": "Bearer ci-token"}


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:80",
        "localhost.evil.com",
        "127.0.0.1.evil",
        "",
        "0x7f.1",
        "2130706433",
        "user@127.0.0.1",
        "[::1",
        "10.0.0.1",
    ],
)
async def test_an_unknown_host_is_refused_on_every_route(gateway, host):
    base = gateway.url.removesuffix("/mcp/notes")
    for path in ("/mcp/notes", "/healthz", "/readyz", "/nowhere"):
        async with gateway.http.get(base + path, headers={"Host": host}) as answer:
            assert answer.status in (400, 421)
    assert gateway.recorder.received == []


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8808", "LOCALHOST"])
async def test_loopback_names_are_accepted(gateway, host):
    async with await gateway.post(call("get_note"), {"Host": host}) as answer:
        assert answer.status == 200


def test_host_names_in_the_config_are_accepted():
    config = Config(servers={}, policy=PolicyOptions(default="deny"), hosts=["Inside"], listen="10.0.0.1:1")
    assert agent_hosts(config) == {"inside", "10.0.0.1"}
    assert agent_hosts(replace(config, url="https://MCP.example.com:8443/")) == {
        "inside",
        "10.0.0.1",
        "mcp.example.com",
    }
    assert agent_hosts(replace(config, listen="unix:/x", hosts=[])) == set()


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.com", "http://localhost.evil", "https://127.0.0.1.evil", "http://0.0.0.0"]
)
async def test_a_request_from_another_origin_is_refused(gateway, origin):
    async with await gateway.post(call("get_note"), {"Origin": origin}) as answer:
        assert answer.status == 403
    assert gateway.recorder.received == []


async def test_a_request_from_our_own_origin_is_accepted(gateway):
    async with await gateway.post(call("get_note"), {"Origin": "http://localhost:3000"}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "media",
    [
        "text/plain",
        "application/json; charset=utf-16",
        "application/json;x=y",
        "multipart/form-data",
        "",
        "application/jsonx",
    ],
)
async def test_a_body_that_is_not_plain_json_is_refused(gateway, media):
    async with await gateway.post(call("create_note"), {"Content-Type": media}) as answer:
        assert answer.status == 415
    assert gateway.recorder.received == []


@pytest.mark.parametrize(
    "media",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
    ],
)
async def test_plain_json_is_accepted_in_any_spelling(gateway, media):
    async with await gateway.post(call("get_note"), {"Content-Type": media}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity"])
async def test_an_encoded_body_is_refused(gateway, encoding):
    async with gateway.http.post(
        gateway.url, data=json.dumps(call("create_note")).encode(),
        headers={"Content-Type": "application/json", "Content-Encoding": encoding}, skip_auto_headers=["Content-Encoding"],
    ) as answer:  # fmt: skip
        assert answer.status in (400, 415)
    assert gateway.recorder.received == []


async def test_a_request_body_that_is_too_large_is_refused(gateway):
    try:
        async with gateway.http.post(
            gateway.url, data=io.BytesIO(b" " * (5 << 20)), headers={"Content-Type": "application/json"}
        ) as answer:
            assert answer.status == 413
    except aiohttp.ClientError:
        pass  # the connection may be closed before the body was sent
    assert gateway.recorder.received == []


@pytest.mark.parametrize("same", [slice(0, 32), slice(32, 64), slice(0, 63), slice(1, 64)])
async def test_a_token_whose_hash_matches_only_in_part_is_refused(same):
    whole = hashlib.sha256(b"ci-token").hexdigest()
    known = ["0" if digit != "0" else "1" for digit in whole]
    known[same] = whole[same]
    async with running(more=f"agents: [{{name: ci, token_sha256: {''.join(known)}}}]") as gateway:
        async with await gateway.post(call("get_note"), CI) as answer:
            assert answer.status == 401
        assert gateway.recorder.received == []


async def test_only_a_token_identifies_an_agent():
    async with running(more=AGENTS) as gateway:
        for headers in (
            {}, {"Authorization": ""}, {"Authorization": "Bearer "}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic ci-token"},
            {"Authorization": "Bearer ci-tokené"}, {"X-Agent": "ci"},
        ):  # fmt: skip
            async with await gateway.post(call("get_note"), headers) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert gateway.recorder.received == []
        async with await gateway.post(call("get_note"), CI) as answer:
            assert answer.status == 200
        assert "authorization" not in gateway.recorder.received[-1].headers


async def test_guessing_tokens_gets_429_while_a_valid_token_still_works(caplog):
    async def given(gateway, token):
        async with await gateway.post(call("get_note"), {"Authorization": f"Bearer {token}"}) as answer:
            return answer.status, answer.headers.get("Retry-After")

    async with running(more=AGENTS) as gateway:
        guesses = [await given(gateway, f"guess-{number}") for number in range(1000)]
        assert guesses == [(401, None)] * MAX_WRONG_TOKENS + [(429, "300")] * (1000 - MAX_WRONG_TOKENS)
        assert [record.message for record in caplog.records] == [
            "127.0.0.1 sent 30 wrong agent tokens within 300 s"
        ]
        assert (await given(gateway, "ci-token"))[0] == 200
        assert (await gateway.post(call("get_note"))).status == 401, "no token is no guess"
        gateway.clock.now += WINDOW
        assert (await given(gateway, "guess"))[0] == 401
    assert len(gateway.recorder.calls) == 1


@pytest.mark.parametrize("trusted", [True, False])
async def test_wrong_tokens_behind_a_trusted_proxy_count_per_client(trusted, caplog):
    async with running(more=AGENTS + "\ntrusted_proxies: [127.0.0.1]" * trusted) as gateway:

        async def guessed(address):
            headers = {"Authorization": "Bearer guess", "Forwarded": f"for={address}"}
            async with await gateway.post(call("get_note"), headers) as answer:
                return answer.status

        assert [await guessed("192.0.2.1") for _ in range(MAX_WRONG_TOKENS + 1)] == [
            401
        ] * MAX_WRONG_TOKENS + [429]
        assert await guessed("192.0.2.2") == (401 if trusted else 429)
    who = "192.0.2.1" if trusted else "127.0.0.1"
    assert [record.message for record in caplog.records] == [f"{who} sent 30 wrong agent tokens within 300 s"]


async def test_an_agent_reaches_only_its_own_servers():
    async with running(more=AGENTS) as gateway:
        async with await gateway.post(call("get_note"), {"Authorization": "Bearer other-token"}) as answer:
            assert answer.status == 404
        for verb in ("GET", "DELETE"):
            headers = {"Authorization": "Bearer other-token", "Accept": "text/event-stream"}
            async with gateway.http.request(verb, gateway.url, headers=headers) as answer:
                assert answer.status == 404
        assert gateway.recorder.received == []


async def test_the_owner_and_the_agent_are_on_the_held_call():
    async with running(more=AGENTS) as gateway:
        agent = asyncio.ensure_future(gateway.post(call("create_note"), CI))
        [held] = await gateway.held()
        assert (held.call.agent, held.call.owner) == ("ci", "alice")
        agent.cancel()


async def test_health_and_readiness(gateway):
    base = gateway.url.removesuffix("/mcp/notes")
    async with gateway.http.get(f"{base}/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok", "role": "run"})
    async with gateway.http.get(f"{base}/readyz") as answer:
        said = {"status": "servers: not every server has been asked for its tools yet"}
        assert (answer.status, await answer.json()) == (503, said)
    await gateway.gateway.refresh_tools()
    async with gateway.http.get(f"{base}/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    gateway.gateway.store.check = None
    async with gateway.http.get(f"{base}/readyz") as answer:
        assert answer.status == 503


async def test_an_unreachable_server_does_not_block_the_others():
    async with running(server_options="command: ['true']") as gateway:
        await gateway.gateway.refresh_tools()
        async with gateway.http.get(f"{gateway.url.removesuffix('/mcp/notes')}/readyz") as answer:
            assert answer.status == 200


async def test_other_http_methods_are_not_served(gateway):
    async with gateway.http.put(gateway.url) as answer:
        assert answer.status == 405


async def test_a_session_of_another_agent_is_not_found():
    async with running(more=AGENTS.replace("servers: []", "servers: [notes]")) as gateway:
        gateway.recorder.session = "s1"
        opening = {
            "jsonrpc": "2.0",
            "id": 0,
            "method": "initialize",
            "params": {"protocolVersion": "2025-11-25", "capabilities": {}},
        }
        async with await gateway.post(opening, CI) as answer:
            assert answer.headers["Mcp-Session-Id"] == "s1"
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        async with await gateway.post(ping, {**CI, "Mcp-Session-Id": "s1"}) as answer:
            assert answer.status == 200
        for headers in (
            {"Authorization": "Bearer other-token", "Mcp-Session-Id": "s1"},
            {**CI, "Mcp-Session-Id": "s2"},
        ):
            async with await gateway.post(ping, headers) as answer:
                assert answer.status == 404
            async with gateway.http.delete(gateway.url, headers=headers) as answer:
                assert answer.status == 404
        assert len(gateway.recorder.received) == 2


OPENING = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "other", "version": "1"},
    },
}


async def test_a_client_cannot_choose_its_session_or_its_agent_name():
    async with running(more=AGENTS) as gateway:
        async with await gateway.post(OPENING, {**CI, "Mcp-Session-Id": "mine"}) as answer:
            assert answer.status == 404
        assert gateway.recorder.received == []
        gateway.recorder.session = "s1"
        async with await gateway.post(OPENING, {**CI, "X-Agent": "other"}) as answer:
            assert answer.status == 200
        agent = asyncio.ensure_future(gateway.post(call("create_note"), {**CI, "Mcp-Session-Id": "s1"}))
        [held] = await gateway.held()
        assert held.call.agent == "ci"
        agent.cancel()


async def test_a_session_reopened_with_other_params_is_a_new_one():
    async with running() as gateway:
        for session in ("s1", "s2"):
            gateway.recorder.session = session
            async with await gateway.post(OPENING) as answer:
                assert answer.headers["Mcp-Session-Id"] == session
        for session in ("s1", "s2"):
            ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            async with await gateway.post(ping, {"Mcp-Session-Id": session}) as answer:
                assert answer.status == 200


async def test_the_agents_listener_rejects_an_approvers_token_or_cookie():
    async with running(more=AGENTS) as gateway:
        for headers in ({"Authorization": "Bearer alice-secret-token"}, {"Cookie": "okayed=abc"}):
            async with await gateway.post(call("get_note"), headers) as answer:
                assert answer.status == 401
        assert gateway.recorder.received == []


async def test_a_reply_has_only_the_protocols_headers(gateway):
    async with await gateway.post(
        call("get_note"), {"Cookie": "a=b", "X-Forwarded-For": "1.2.3.4"}
    ) as answer:
        assert "Set-Cookie" not in answer.headers
    assert not {"cookie", "x-forwarded-for", "origin"} & set(gateway.recorder.received[-1].headers)


@pytest.mark.parametrize("media", ["text/event-stream", "application/json"])
async def test_a_response_that_breaks_off_breaks_off_for_the_client_too(media, caplog):
    async def cut(request, frame):
        response = web.StreamResponse(headers={"Content-Type": media})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        request.transport.abort()
        return response

    async with running(recorder=RecordingServer(on_call=cut)) as gateway:
        answer = await gateway.post(call("get_note"))
        assert await answer.content.readany() == b"data: first\n\n"
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert [(record.name, record.exc_info) for record in caplog.records if record.levelname == "ERROR"] == []


async def test_only_a_completely_written_answer_is_delivered():
    read, delivered = asyncio.Event(), asyncio.Event()

    async def note():
        await read.wait()
        delivered.set()

    async def cut():
        yield b"{"
        raise ConnectionLostError("The server ended its answer.")

    async with running() as gateway:
        whole = frame_reply(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        replies = [
            replace(whole, delivered=note),
            Reply(status=200, chunks=cut(), delivered=note),
        ]

        async def handle(_):
            return replies.pop(0)

        gateway.gateway.proxy.begin = handle
        async with asyncio.timeout(HANG), await gateway.post(call("get_note")) as answer:
            assert await answer.json() == {"jsonrpc": "2.0", "id": 1, "result": {}}
        assert not delivered.is_set()
        read.set()
        async with asyncio.timeout(HANG):
            await delivered.wait()
        delivered.clear()
        with pytest.raises(aiohttp.ClientPayloadError):
            async with asyncio.timeout(HANG), await gateway.post(call("get_note")) as answer:
                await answer.read()
        assert not delivered.is_set()
