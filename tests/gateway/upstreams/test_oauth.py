"""The gateway's own tokens: fetched when needed, reused while valid, dropped when refused, never revealed."""

import asyncio
import base64
import json
import logging
from urllib.parse import parse_qs, unquote_plus

import pytest
from aiohttp import web

from gateway.errors import NotSentError
from gateway.upstreams import oauth
from gateway.upstreams.client_session import open_client_session
from gateway.upstreams.http import HttpUpstream
from gateway.upstreams.http1.pool import ConnectionPool
from gateway.upstreams.oauth import ClientCredentials, OAuthClient
from gateway.upstreams.reply import read_body
from gateway.upstreams.sse import SseServer, SseUpstream
from gateways import Clock, running, text
from hang import HANG
from recording_server import RecordingServer
from sse_server import MisbehavingSseServer

ID, SECRET = "hold point:é", "s3cret &+%"


class Tokens:
    """A token endpoint that checks the client and knows the valid tokens."""

    def __init__(self, clock) -> None:
        self.clock = clock
        self.forms: list[dict] = []
        self.good: dict[str, float] = {}
        self.answer: dict = {}
        self.status = 200
        self.raw: bytes | None = None
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def __aenter__(self) -> "Tokens":
        app = web.Application()
        app.router.add_post("/token", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/token"
        return self

    async def __aexit__(self, *_) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        kind, _, pair = request.headers["Authorization"].partition(" ")
        user, _, password = base64.b64decode(pair).decode().partition(":")
        if (kind, unquote_plus(user), unquote_plus(password)) != ("Basic", ID, SECRET):
            return web.json_response({"error": "invalid_client"}, status=401)
        self.forms.append({name: value for name, [value] in parse_qs(await request.text()).items()})
        await self.let_go.wait()
        if self.raw is not None:
            return web.Response(status=self.status, body=self.raw, headers={"Location": self.url})
        token = f"token-{len(self.forms)}"
        self.good[token] = self.clock() + 3600
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": 3600, **self.answer}
        return web.json_response({name: value for name, value in answer.items() if value is not None})


@pytest.fixture
async def http():
    async with open_client_session() as session:
        yield session


@pytest.fixture
async def pool():
    async with ConnectionPool() as pool:
        yield pool


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def tokens(clock):
    async with Tokens(clock) as server:
        yield server


def client(tokens, **other) -> OAuthClient:
    return OAuthClient(
        **{"token_url": tokens.url, "id": ID, "secret": SECRET, "resource": "http://x/mcp", **other}
    )


@pytest.fixture
def credentials(tokens, http, clock):
    return ClientCredentials(client(tokens), http, clock, {"X-Team": "a"})


def bearer(number: int) -> dict:
    return {"X-Team": "a", "Authorization": f"Bearer token-{number}"}


async def test_a_token_is_reused_until_shortly_before_it_expires(credentials, tokens, clock):
    assert await credentials.headers() == bearer(1)
    clock.now += 3600 - oauth.MARGIN - 1
    assert await credentials.headers() == bearer(1)
    clock.now += 1
    assert await credentials.headers() == bearer(2)
    assert len(tokens.forms) == 2


@pytest.mark.parametrize(
    ("expires_in", "kept"),
    [
        (20, 10),
        ("60", 30),
        (None, oauth.DEFAULT_LIFETIME - oauth.MARGIN),
        ("soon", oauth.DEFAULT_LIFETIME - oauth.MARGIN),
        (1, 0.5),
        (-5, oauth.DEFAULT_LIFETIME - oauth.MARGIN),
    ],
)
async def test_a_token_is_reused_for_its_lifetime_minus_a_margin(
    credentials, tokens, clock, expires_in, kept
):
    tokens.answer = {"expires_in": expires_in}
    await credentials.headers()
    clock.now += kept - 0.5
    await credentials.headers()
    assert len(tokens.forms) == 1
    clock.now += 0.5
    await credentials.headers()
    assert len(tokens.forms) == 2


async def test_the_token_request_has_the_fields_of_the_rfc(tokens, http, clock):
    await ClientCredentials(client(tokens), http, clock).headers()
    await ClientCredentials(
        client(tokens, scope="a b", resource="https://u:p@host/mcp?x=1#part"), http, clock
    ).headers()
    assert tokens.forms == [
        {"grant_type": "client_credentials", "resource": "http://x/mcp"},
        {"grant_type": "client_credentials", "resource": "https://host/mcp?x=1", "scope": "a b"},
    ]


async def test_simultaneous_calls_share_one_token_request(credentials, tokens):
    tokens.let_go.clear()
    asked = [asyncio.ensure_future(credentials.headers()) for _ in range(5)]
    async with asyncio.timeout(HANG):
        while not tokens.forms:
            await asyncio.sleep(0)
        tokens.let_go.set()
        assert await asyncio.gather(*asked) == [bearer(1)] * 5
    assert len(tokens.forms) == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, b'{"error": "invalid_scope", "error_description": "s3cret"}', r"\(HTTP 400, invalid_scope\)"),
        (400, b'{"error": "s3cret"}', r"\(HTTP 400\)"),
        (401, b'{"error": ["x"]}', r"\(HTTP 401\)"),
        (500, b"<html>", r"\(HTTP 500\)"),
        (307, b"", r"\(HTTP 307\)"),
        (200, b"no JSON", "no usable access_token"),
        (200, b"[]", "no usable access_token"),
        (200, b'{"access_token": 5}', "no usable access_token"),
        (200, b'{"access_token": "a\\r\\nX: y", "token_type": "Bearer"}', "no usable access_token"),
        (200, b'{"access_token": "a", "token_type": "mac"}', "not a Bearer token"),
        (200, b'{"access_token": "a"}', "not a Bearer token"),
    ],
)
async def test_without_a_token_nothing_is_sent_and_one_sentence_says_why(
    credentials, tokens, pool, caplog, status, body, said
):
    caplog.set_level(logging.DEBUG)
    tokens.status, tokens.raw = status, body
    async with RecordingServer() as recorder:
        with pytest.raises(NotSentError, match=said) as told:
            await HttpUpstream(recorder.url, credentials, pool).send("POST", b"{}", {})
    assert recorder.received == []
    assert "s3cret" not in str(told.value) + caplog.text
    assert len(tokens.forms) == 1


async def test_the_error_for_a_wrong_secret_does_not_contain_it(tokens, http, clock):
    wrong = client(tokens, secret="oops")
    with pytest.raises(NotSentError, match="HTTP 401, invalid_client") as told:
        await ClientCredentials(wrong, http, clock).headers()
    assert "oops" not in str(told.value) + repr(wrong)


async def test_an_unreachable_or_silent_token_endpoint_is_an_error(tokens, http, clock, credentials):
    async with Tokens(clock) as gone:
        pass
    with pytest.raises(NotSentError, match="could not be reached"):
        await ClientCredentials(client(gone), http, clock).headers()
    was, oauth.TOKEN_TIMEOUT = oauth.TOKEN_TIMEOUT, 0.05
    try:
        tokens.let_go.clear()
        with pytest.raises(NotSentError, match="did not answer in time"):
            await credentials.headers()
    finally:
        oauth.TOKEN_TIMEOUT = was
        tokens.let_go.set()
    assert (await credentials.headers())["Authorization"] == "Bearer token-2"


async def test_a_refused_token_is_dropped_and_the_call_is_not_repeated(credentials, tokens, pool):
    async def refuse(request, frame):
        return web.Response(status=401)

    async with RecordingServer(on_call=refuse) as recorder:
        upstream = HttpUpstream(recorder.url, credentials, pool)
        for number in (1, 2):
            reply = await upstream.send("POST", b'{"id":1,"method":"tools/call"}', {"authorization": "agent"})
            assert reply.status == 401
            reply.close()
            assert len(recorder.received) == number
            assert recorder.received[-1].headers["authorization"] == f"Bearer token-{number}"
    assert await credentials.headers() == bearer(3)
    credentials.mark_refused(bearer(1))
    assert await credentials.headers() == bearer(3)


async def test_an_sse_server_gets_a_valid_token_with_every_message(credentials, tokens, pool, clock):
    tokens.answer = {"expires_in": 1000}
    async with MisbehavingSseServer(authorization="Bearer token-1") as nasty:
        source = SseServer(name="n", url=nasty.url, credentials=credentials, requests=pool)
        upstream = SseUpstream(source, clock)
        opening = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}).encode()
        reply = await upstream.send("POST", opening, {})
        await read_body(reply)
        session = {"Mcp-Session-Id": reply.header("mcp-session-id")}
        clock.now += 1000
        nasty.authorization = "Bearer token-2"
        echo = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}
        ).encode()
        reply = await upstream.send("POST", echo, session)
        assert reply.status == 200
        tokens.status, tokens.raw = 503, b""
        clock.now += 1000
        with pytest.raises(NotSentError, match="HTTP 503"):
            await upstream.send("POST", echo, session)
        await upstream.close()


async def test_a_held_call_is_sent_with_the_current_token_or_not_at_all():
    clock = Clock()
    async with Tokens(clock) as tokens, RecordingServer() as recorder:
        options = (
            f"url: '{recorder.url}', headers: {{X-Team: a}}, oauth: {{token_url: '{tokens.url}', "
            f"client_id: '{ID}', client_secret: '${{SECRET}}', scope: notes}}"
        )
        async with running(server_options=options, environ={"SECRET": SECRET}) as gateway:
            assert "ran" in text(await gateway.call("get_note"))
            assert tokens.forms == [
                {"grant_type": "client_credentials", "resource": recorder.url, "scope": "notes"}
            ]
            waiting = asyncio.ensure_future(gateway.call("create_note"))
            [held] = await gateway.held()
            gateway.clock.now += 700
            tokens.answer = {}
            for upstream in gateway.gateway.proxy.settings.upstreams.values():
                upstream.inner._endpoint._credentials.mark_refused(bearer(1))
            await gateway.review(held)
            async with asyncio.timeout(HANG):
                assert "ran create_note" in text(await waiting)
            assert recorder.received[-1].headers["authorization"] == "Bearer token-2"
            assert recorder.received[-1].headers["x-team"] == "a"
            tokens.status, tokens.raw = 500, b""
            gateway.clock.now += 3600
            answer = await gateway.call("get_note")
            assert "nothing was sent" in answer["error"]["message"]
            assert not any(SECRET in str(event) for event in await gateway.gateway.store.events())
