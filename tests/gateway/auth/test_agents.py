"""Agents with JWTs: which tokens are valid, and the challenges to clients."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import warnings
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from msgspec.structs import replace

from gateway.auth.tokens import InvalidToken, TokenVerifier
from gateway.config.options import Config, IssuerOptions, PolicyOptions
from gateways import Clock, call, running
from hang import HANG
from issuer import Issuer, unsigned
from process import sha256

HERE = "https://mcp.example.com"
NOTES = f"{HERE}/mcp/notes"
METADATA = f"{HERE}/.well-known/oauth-protected-resource/mcp/notes"
BOT = "agents: [{name: bot-one, owner: alice, subject: bot}]"


@asynccontextmanager
async def with_issuer(extra: str = "", agents: str = BOT, url: str = HERE):
    """Run a gateway and its issuer on one clock."""
    clock = Clock()
    async with Issuer(clock) as issuer:
        jwt = f"jwt: [{{issuer: '{issuer.url}', jwks: '{issuer.url}/jwks.json'{extra and ', '}{extra}}}]"
        async with running(more=f"url: '{url}'\n{jwt}\n{agents}") as gateway:
            issuer.now = gateway.clock
            yield gateway, issuer


async def answer(gateway, token: str | None, **more) -> tuple[int, str | None, str]:
    """Make a read call with this token; return status, challenge and body."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with await gateway.post(call("get_note"), {**headers, **more}) as got:
        return got.status, got.headers.get("WWW-Authenticate"), await got.text()


async def test_a_token_of_a_listed_subject_authenticates_its_agent():
    async with with_issuer() as (gateway, issuer):
        agent = asyncio.ensure_future(
            gateway.post(call("create_note"), {"Authorization": f"Bearer {issuer.token(aud=NOTES)}"})
        )
        [held] = await gateway.held()
        assert (held.call.agent, held.call.owner) == ("bot-one", "alice")
        agent.cancel()
        assert all("authorization" not in one.headers for one in gateway.recorder.received)


@pytest.mark.parametrize("audience", [NOTES, HERE, f"{HERE}/", ["https://elsewhere.example", NOTES]])
async def test_the_audience_is_this_server_or_the_whole_gateway(audience):
    async with with_issuer() as (gateway, issuer):
        assert (await answer(gateway, issuer.token(aud=audience)))[0] == 200


@pytest.mark.parametrize(
    ("algorithm", "make"),
    [("RS256", ""), ("PS256", ""), ("ES256", ""), ("ES384", ""), ("EdDSA", ""), ("EdDSA", "Ed448")],
)
async def test_each_kind_of_key_is_accepted_if_the_config_allows_it(algorithm, make):
    async with with_issuer(extra=f"algorithms: [{algorithm}]") as (gateway, issuer):
        issuer.add("other", algorithm, make=make, alg=algorithm, use="sig")
        token = issuer.token(aud=NOTES, kid="other", algorithm=algorithm, header={"typ": "at+JWT"})
        assert (await answer(gateway, token))[0] == 200
        if algorithm != "RS256":
            assert (await answer(gateway, issuer.token(aud=NOTES)))[0] == 401


def _signed_by_hand(issuer: Issuer, header: dict, secret: bytes | None) -> str:
    text = f"{unsigned(header)}.{unsigned({'iss': issuer.url, 'sub': 'bot', 'aud': NOTES, 'exp': issuer.now() + 300})}"
    mac = hmac.digest(secret, text.encode(), hashlib.sha256) if secret else b""
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _signed_well(issuer: Issuer, header: dict) -> str:
    text = _signed_by_hand(issuer, header, None).rpartition(".")[0]
    signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(text.encode(), issuer.keys["one"])
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _public_pem(issuer: Issuer) -> bytes:
    return (
        issuer.keys["one"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _tampered(token: str) -> str:
    header, claims, signature = token.split(".")
    read = json.loads(base64.urlsafe_b64decode(claims + "=="))
    return f"{header}.{unsigned({**read, 'sub': 'bot', 'extra': 1})}.{signature}"


def _in_another_algorithm(issuer: Issuer) -> str:
    return issuer.token(aud=NOTES, algorithm="PS256")


BAD = {
    "expired": lambda i: i.token(aud=NOTES, exp=int(i.now()) - 31),
    "expires at no time": lambda i: i.token(aud=NOTES, exp=float("nan")),
    "expires in words": lambda i: i.token(aud=NOTES, exp="soon"),
    "expires in truth": lambda i: i.token(aud=NOTES, exp=True),
    "not yet": lambda i: i.token(aud=NOTES, nbf=int(i.now()) + 31),
    "not yet, in words": lambda i: i.token(aud=NOTES, nbf="now"),
    "issued tomorrow": lambda i: i.token(aud=NOTES, iat=int(i.now()) + 86400),
    "another server": lambda i: i.token(aud=f"{HERE}/mcp/other"),
    "another host": lambda i: i.token(aud="https://mcp.example.com.evil.example/mcp/notes"),
    "a slash too many": lambda i: i.token(aud=f"{NOTES}/"),
    "a fragment": lambda i: i.token(aud=f"{NOTES}#x"),
    "no audience": lambda i: i.token(),
    "an empty audience": lambda i: i.token(aud=[]),
    "an audience of numbers": lambda i: i.token(aud=[1]),
    "another issuer": lambda i: i.token(aud=NOTES, iss="https://evil.example"),
    "the issuer with a slash": lambda i: i.token(aud=NOTES, iss=f"{i.url}/"),
    "no exp": lambda i: i.token(aud=NOTES, exp=None),
    "a subject that is a number": lambda i: i.token(7, aud=NOTES),
    "unknown kid": lambda i: i.token(aud=NOTES, key=i.keys["one"], kid="two"),
    "no kid": lambda i: _signed_by_hand(i, {"alg": "RS256", "typ": "JWT"}, None),
    "alg none": lambda i: _signed_by_hand(i, {"alg": "none", "kid": "one"}, None),
    "alg None": lambda i: _signed_by_hand(i, {"alg": "None", "kid": "one"}, None),
    "no alg": lambda i: _signed_by_hand(i, {"kid": "one"}, None),
    "alg of a list": lambda i: _signed_by_hand(i, {"alg": ["RS256"], "kid": "one"}, None),
    "HS256 with the public key": lambda i: _signed_by_hand(i, {"alg": "HS256", "kid": "one"}, _public_pem(i)),
    "RS256 by a MAC": lambda i: _signed_by_hand(i, {"alg": "RS256", "kid": "one"}, _public_pem(i)),
    "an algorithm that is not allowed": _in_another_algorithm,
    "tampered": lambda i: _tampered(i.token("mallory", aud=NOTES)),
    "signed by another": lambda i: i.token(aud=NOTES, kid="one", key=_other_key()),
    "no signature": lambda i: i.token(aud=NOTES).rpartition(".")[0] + ".",
    "a critical extension": lambda i: _signed_well(i, {"alg": "RS256", "kid": "one", "crit": ["b64"], "b64": True}),
    "a logout token": lambda i: i.token(aud=NOTES, header={"typ": "logout+jwt"}),
    "a type that is a number": lambda i: _signed_by_hand(i, {"alg": "RS256", "kid": "one", "typ": 1}, None),
    "its own key along": lambda i: i.token(aud=NOTES, kid="x", key=_other_key(), header={"jku": "http://127.0.0.1:1/"}),
    "not a token": lambda _: "x.y.z",
    "not ASCII": lambda i: i.token(aud=NOTES) + "é",
    "of one part": lambda _: "x",
}  # fmt: skip


def _other_key():
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
async def test_an_invalid_token_is_refused(make, caplog):
    async with with_issuer() as (gateway, issuer):
        assert (await answer(gateway, issuer.token(aud=NOTES)))[0] == 200
        passed = len(gateway.recorder.received)
        token = make(issuer)
        status, challenge, body = await answer(gateway, token)
        assert (status, challenge) == (
            401,
            f'Bearer resource_metadata="{METADATA}", error="invalid_token"',
        )
        assert len(gateway.recorder.received) == passed
        assert token not in body + caplog.text


async def test_a_clock_difference_of_thirty_seconds_is_tolerated():
    async with with_issuer() as (gateway, issuer):
        now = int(gateway.clock())
        for times in ({"exp": now - 29}, {"nbf": now + 30}, {"iat": now + 30}):
            assert (await answer(gateway, issuer.token(aud=NOTES, **times)))[0] == 200


async def test_a_token_is_accepted_in_exactly_one_authorization_header():
    async with with_issuer() as (gateway, issuer):
        token = issuer.token(aud=NOTES)
        bearer = ("Authorization", f"Bearer {token}")
        headers = [("Content-Type", "application/json"), bearer, bearer]
        async with gateway.http.post(gateway.url, json=call("get_note"), headers=headers) as got:
            assert got.status in (400, 401)
        for query in ("access_token", "token"):
            async with gateway.http.post(
                f"{gateway.url}?{query}={token}", json=call("get_note"), headers={"X-Token": token}
            ) as got:
                assert got.status == 401
        assert gateway.recorder.received == []


async def test_without_a_token_a_client_learns_where_to_get_one():
    async with with_issuer(extra="scopes: [mcp:call, mcp:read]") as (gateway, issuer):
        status, challenge, _ = await answer(gateway, None)
        assert (status, challenge) == (
            401,
            f'Bearer resource_metadata="{METADATA}", scope="mcp:call mcp:read"',
        )
        base = gateway.url.removesuffix("/mcp/notes")
        async with gateway.http.get(f"{base}/.well-known/oauth-protected-resource/mcp/notes") as got:
            assert (got.status, await got.json()) == (
                200,
                {
                    "resource": NOTES,
                    "authorization_servers": [issuer.url],
                    "bearer_methods_supported": ["header"],
                    "scopes_supported": ["mcp:call", "mcp:read"],
                    "resource_name": "notes behind Okayed",
                },
            )
        async with gateway.http.get(f"{base}/.well-known/oauth-protected-resource/mcp/nowhere") as got:
            assert got.status == 404
        assert issuer.fetches == 0


async def test_a_servers_name_cannot_break_the_challenge():
    async with with_issuer() as (gateway, _):
        base = gateway.url.removesuffix("notes")
        async with gateway.http.post(f"{base}x%22%2C%20error=%22y%0d%0aA", json={}) as got:
            assert got.headers["WWW-Authenticate"].count('"') == 2
            assert "error=" not in got.headers["WWW-Authenticate"]


async def test_metadata_omits_missing_scopes_and_issuers():
    async with with_issuer() as (gateway, _):
        base = gateway.url.removesuffix("/mcp/notes")
        async with gateway.http.get(f"{base}/.well-known/oauth-protected-resource/mcp/notes") as got:
            assert "scopes_supported" not in await got.json()
    async with running() as gateway:
        base = gateway.url.removesuffix("/mcp/notes")
        async with gateway.http.get(f"{base}/.well-known/oauth-protected-resource/mcp/notes") as got:
            assert got.status == 404


SCOPES = {
    "none": ({}, 403),
    "another": ({"scope": "mcp:read"}, 403),
    "one of two": ({"scope": "mcp:call"}, 403),
    "a part of one": ({"scope": "mcp:calling mcp:reading"}, 403),
    "both": ({"scope": "openid mcp:read mcp:call"}, 200),
    "both as a list": ({"scp": ["mcp:read", "mcp:call", 1]}, 200),
    "neither": ({"scope": 7}, 403),
}


@pytest.mark.parametrize(("claims", "status"), SCOPES.values(), ids=SCOPES.keys())
async def test_every_configured_scope_is_required(claims, status):
    async with with_issuer(extra="scopes: [mcp:call, mcp:read]") as (gateway, issuer):
        got, challenge, _ = await answer(gateway, issuer.token(aud=NOTES, **claims))
        assert got == status
        if status == 403:
            assert (
                challenge
                == f'Bearer resource_metadata="{METADATA}", scope="mcp:call mcp:read", error="insufficient_scope"'
            )


async def test_the_issuers_audience_replaces_the_servers():
    async with with_issuer(extra="audience: [api://okayed]") as (gateway, issuer):
        assert (await answer(gateway, issuer.token(aud="api://okayed")))[0] == 200
        for audience in (NOTES, HERE, f"{HERE}/"):
            assert (await answer(gateway, issuer.token(aud=audience)))[0] == 401


@pytest.mark.parametrize("subject", ["mallory", "Bot", "bot-one", "", "bot\n", None])
async def test_a_subject_that_is_not_listed_is_refused(subject):
    async with with_issuer() as (gateway, issuer):
        status, challenge, body = await answer(gateway, issuer.token(subject, aud=NOTES))
        assert (status, challenge) == (403, None)
        assert "not an agent of this gateway" in body
        assert gateway.recorder.received == []


@pytest.mark.parametrize(
    ("subject", "status"),
    [
        ("anyone", 200), ("bot", 200), ("x" * 200, 200), ("bot-one", 403), ("BOT-ONE", 403), ("", 403), ("a\nb", 403),
        ("x" * 201, 403), ("a\u202eb", 403), (None, 403),
    ],
)  # fmt: skip
async def test_any_subject_is_accepted_except_under_the_name_of_another_agent(subject, status):
    async with with_issuer(extra="any_subject: true") as (gateway, issuer):
        assert (await answer(gateway, issuer.token(subject, aud=NOTES)))[0] == status


async def test_the_agent_may_be_in_another_claim():
    async with with_issuer(extra="agent_claim: client_id, any_subject: true") as (gateway, issuer):
        token = issuer.token("someone", aud=NOTES, client_id="builder")
        agent = await gateway.gateway.agents.authenticate([f"Bearer {token}"], "notes")
        assert (agent.name, agent.owner, agent.servers) == ("builder", None, None)


OWNERS = {
    "a name": ({"email": "bob@example.com"}, "bob@example.com"),
    "a verified one": ({"email": "bob@example.com", "email_verified": True}, "bob@example.com"),
    "an unverified one": ({"email": "bob@example.com", "email_verified": False}, None),
    "none": ({}, None),
    "no text": ({"email": ["bob@example.com"]}, None),
    "nothing": ({"email": ""}, None),
}


@pytest.mark.parametrize(("claims", "owner"), OWNERS.values(), ids=OWNERS.keys())
async def test_a_token_without_a_verified_owner_is_refused(claims, owner):
    async with with_issuer(extra="owner_claim: email", agents="agents: [{name: b, subject: bot}]") as (
        gateway, issuer,
    ):  # fmt: skip
        token = issuer.token(aud=NOTES, **claims)
        status, _, body = await answer(gateway, token)
        assert status == (200 if owner else 403)
        assert owner or "verified owner" in body
        if owner:
            assert (await gateway.gateway.agents.authenticate([f"Bearer {token}"], "notes")).owner == owner


async def test_the_owner_in_the_config_takes_precedence_over_the_tokens():
    async with with_issuer(extra="owner_claim: email") as (gateway, issuer):
        token = issuer.token(aud=NOTES, email="bob@example.com")
        assert (await gateway.gateway.agents.authenticate([f"Bearer {token}"], "notes")).owner == "alice"


async def test_an_agent_with_a_jwt_reaches_only_its_servers():
    async with with_issuer(agents="agents: [{name: b, subject: bot, servers: []}]") as (gateway, issuer):
        assert (await answer(gateway, issuer.token(aud=NOTES)))[0] == 404


async def test_an_agents_own_token_works_beside_jwts_without_a_fetch():
    agents = f"agents: [{{name: ci, token_sha256: {sha256('ci-token')}}}, {{name: b, subject: bot}}]"
    async with with_issuer(agents=agents) as (gateway, issuer):
        assert (await answer(gateway, "ci-token"))[0] == 200
        assert (await answer(gateway, "ci-tokem"))[0] == 401
        assert issuer.fetches == 0
        assert (await answer(gateway, issuer.token(aud=NOTES)))[0] == 200


async def test_a_subject_is_matched_with_its_issuer():
    clock = Clock()
    async with Issuer(clock) as first, Issuer(clock) as second:
        jwt = ", ".join(f"{{issuer: '{one.url}', jwks: '{one.url}/jwks.json'}}" for one in (first, second))
        agents = f"{{name: a, subject: bot, issuer: '{first.url}'}}, {{name: b, subject: cat, issuer: '{second.url}'}}"
        async with running(more=f"url: '{HERE}'\njwt: [{jwt}]\nagents: [{agents}]") as gateway:
            assert (await answer(gateway, first.token(aud=NOTES)))[0] == 200
            assert (await answer(gateway, second.token(aud=NOTES)))[0] == 403
            assert (await answer(gateway, second.token("cat", aud=NOTES)))[0] == 200
            second.add("own", "ES256")
            forged = second.token(aud=NOTES, iss=first.url, kid="own", algorithm="ES256")
            assert (await answer(gateway, forged))[0] == 401


# The keys of the issuer.


async def test_keys_are_fetched_once():
    async with with_issuer() as (gateway, issuer):
        tokens = [issuer.token(aud=NOTES) for _ in range(5)]
        got = await asyncio.gather(*(answer(gateway, token) for token in tokens))
        assert [status for status, _, _ in got] == [200] * 5
        assert issuer.fetches == 1


async def test_a_new_key_is_found_at_most_every_thirty_seconds():
    async with with_issuer() as (gateway, issuer):
        old = issuer.token(aud=NOTES)
        assert (await answer(gateway, old))[0] == 200
        issuer.published.clear()
        issuer.add("two", "ES256")
        new = issuer.token(aud=NOTES, kid="two", algorithm="ES256")
        gateway.clock.now += 29
        assert (await answer(gateway, new))[0] == 401
        assert issuer.fetches == 1
        gateway.clock.now += 1
        assert (await answer(gateway, new))[0] == 200
        assert (await answer(gateway, old))[0] == 401
        assert issuer.fetches == 2


async def test_a_withdrawn_key_is_dropped_within_an_hour():
    async with with_issuer() as (gateway, issuer):
        token = issuer.token(aud=NOTES, exp=int(gateway.clock()) + 86400)
        assert (await answer(gateway, token))[0] == 200
        issuer.published.clear()
        gateway.clock.now += 3600
        async with asyncio.timeout(HANG):
            while (await answer(gateway, token))[0] != 401:
                await asyncio.sleep(0)


def _redirect(_: Issuer) -> web.Response:
    return web.Response(status=302, headers={"Location": "/jwks.json?again"})


FAILURES = {
    "an error": (lambda i: web.json_response({"keys": i.published}, status=500), "HTTP 500"),
    "a redirect": (_redirect, "HTTP 302"),
    "no JSON": (lambda _: web.Response(text="<html>secret</html>"), "DecodeError"),
    "no keys": (lambda _: web.json_response({"secret": []}), "ValidationError"),
    "malformed keys": (lambda _: web.json_response({"keys": ["secret"]}), "ValidationError"),
    "too much": (lambda i: web.Response(text=json.dumps({"keys": i.published}) + " " * (1 << 18)), "longer than 262144 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("respond", "reason"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_failed_fetch_keeps_the_known_keys_and_an_unknown_key_is_refused(respond, reason, caplog):
    async with with_issuer() as (gateway, issuer):
        issuer.respond = lambda _: respond(issuer)
        token = issuer.token(aud=NOTES)
        with caplog.at_level(logging.WARNING, "okayed"):
            assert (await answer(gateway, token))[0] == 401
        assert caplog.messages == [
            f"the keys at 127.0.0.1 could not be fetched ({reason}); the known keys are still in use"
        ]
        assert issuer.fetches == 1
        issuer.respond = None
        gateway.clock.now += 30
        assert (await answer(gateway, token))[0] == 200
        issuer.respond = lambda _: respond(issuer)
        gateway.clock.now += 30
        assert (await answer(gateway, issuer.token(aud=NOTES, kid="x", key=issuer.keys["one"])))[0] == 401
        assert issuer.fetches == 3
        assert (await answer(gateway, token))[0] == 200


async def test_a_token_of_a_removed_issuer_is_refused():
    async with with_issuer() as (gateway, issuer):
        token = issuer.token(aud=NOTES)
        await issuer.runner.cleanup()
        assert (await answer(gateway, token))[0] == 401


async def test_a_caller_that_disconnects_does_not_cancel_the_fetch_for_others():
    async with with_issuer() as (gateway, issuer):
        agents = gateway.gateway.agents
        bearer = [f"Bearer {issuer.token(aud=NOTES)}"]
        first = asyncio.ensure_future(agents.authenticate(bearer, "notes"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await agents.authenticate(bearer, "notes")).name == "bot-one"
        assert issuer.fetches == 1


@pytest.mark.parametrize(
    "more",
    [{"use": "enc"}, {"alg": "RS512"}, {"kid": 1}, {"n": 5}, {"kty": "EC"}, {"kty": "oct", "k": "eA"}],
)  # fmt: skip
async def test_a_key_for_another_use_is_not_used(more):
    async with with_issuer() as (gateway, issuer):
        issuer.published[0].update(more)
        assert (await answer(gateway, issuer.token(aud=NOTES)))[0] == 401


async def test_a_key_published_with_its_private_members_is_not_used():
    async with with_issuer() as (gateway, issuer):
        issuer.published[0] = {**RSAAlgorithm.to_jwk(issuer.keys["one"], as_dict=True), "kid": "one"}
        del issuer.published[0]["key_ops"]
        assert (await answer(gateway, issuer.token(aud=NOTES)))[0] == 401


async def test_with_issuers_and_no_agents_a_token_is_required():
    async with with_issuer(extra="any_subject: true", agents="") as (gateway, issuer):
        assert (await answer(gateway, None))[0] == 401
        assert (await answer(gateway, issuer.token(aud=NOTES)))[0] == 200


async def test_a_weak_key_is_not_used():
    async with with_issuer() as (gateway, issuer):
        issuer.add("weak", "RS256", make="weak")
        token = issuer.token(aud=NOTES, kid="one")
        assert (await answer(gateway, token))[0] == 200
        with warnings.catch_warnings(action="ignore"):
            weak = issuer.token(aud=NOTES, kid="weak")
        gateway.clock.now += 30
        assert (await answer(gateway, weak))[0] == 401


async def test_a_changed_config_keeps_the_keys_and_applies_at_once():
    async with with_issuer() as (gateway, issuer):
        token = issuer.token(aud=NOTES)
        assert (await answer(gateway, token))[0] == 200
        config = gateway.gateway.config
        await gateway.gateway.adopt(replace(config, agents=[replace(config.agents[0], name="renamed")]))
        assert (await gateway.gateway.agents.authenticate([f"Bearer {token}"], "notes")).name == "renamed"
        await gateway.gateway.adopt(replace(config, agents=[replace(config.agents[0], subject="other")]))
        assert (await answer(gateway, token))[0] == 403
        assert issuer.fetches == 1


NO_AGENTS = Config(
    servers={}, policy=PolicyOptions(default="deny"), url=HERE, jwt=[IssuerOptions(issuer=HERE, jwks=HERE)]
)


def _no_keys(url: str):
    raise AssertionError(url)


@given(st.text(max_size=80) | st.lists(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), min_size=2, max_size=3).map(lambda parts: ".".join(map(unsigned, parts))))  # fmt: skip
def test_a_malformed_token_is_refused(token):
    with pytest.raises(InvalidToken):
        TokenVerifier(NO_AGENTS, _no_keys, float).verify(token, "notes").send(
            None
        )  # it is refused before the first await


# With the SDK's client.


async def test_the_sdks_client_finds_the_issuer_and_authenticates():
    from mcp.client import Client
    from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    async with asyncio.timeout(HANG), with_issuer(extra="scopes: [mcp:call]") as (gateway, issuer):
        public = gateway.url.removesuffix("/mcp/notes")
        await gateway.gateway.adopt(replace(gateway.gateway.config, url=public))
        auth = ClientCredentialsOAuthProvider(
            gateway.url, _Storage(), client_id="bot", client_secret="s", issuer=issuer.url
        )
        async with create_mcp_http_client(auth=auth) as http:
            async with Client(streamable_http_client(gateway.url, http_client=http)) as client:
                result = await client.call_tool("get_note", {})
        assert not result.is_error
        assert [(one["resource"], one["scope"]) for one in issuer.requests] == [(gateway.url, "mcp:call")]


class _Storage:
    """The client's token storage."""

    tokens = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return None

    async def set_client_info(self, info):
        raise AssertionError("the client must not register")
