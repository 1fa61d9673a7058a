"""Signing in and out, sessions, proxies and throttling."""

import asyncio
import re
from contextlib import asynccontextmanager

import pytest

from approvals.client_address import TrustedProxies
from approvals.errors import StoreError
from approvals.identity import Directory
from approvals.store.memory.store import MemoryStore
from approvals.store.sqlite.store import SqliteStore
from approvals.throttle import ATTEMPTS, WINDOW
from approvals.web.login import (
    ABSOLUTE,
    IDLE,
    RECORD_ACTIVITY_EVERY,
    local_path,
)
from approvals.web.one_time_codes import CODE_LIFE
from inbox import Inbox, sha256, token
from rows import each_row


async def answer(client, path, method="GET", **more):
    async with client.request(method, path, allow_redirects=False, **more) as got:
        return got.status, await got.text(), got.headers


async def csrf_token(client, path="/"):
    _, body, _ = await answer(client, path)
    return re.search(r'name="csrf_token" value="(\w+)"', body)[1]


OPEN = {"/login", "/login/once/{code}", "/login/once", "/healthz", "/metrics", "/slack/actions", "/static"}


async def test_only_the_public_routes_answer_an_unauthenticated_client():
    async with Inbox(metrics=lambda: (b"", "text/plain")) as inbox:
        client = await inbox.stranger()
        walked = 0
        for route in inbox.app.router.routes():
            path = route.resource.canonical
            if path in OPEN:
                continue
            status, _, headers = await answer(client, path.replace("{id}", "hold_1"), route.method)
            walked += 1
            if path.startswith("/api/") or route.method == "POST":
                assert status == 401, path
            else:
                assert (status, headers["Location"][:6]) == (303, "/login"), path
    assert walked >= 20


async def test_without_approvers_no_one_can_sign_in(inbox):
    inbox.service.directory = Directory([])
    client = await inbox.stranger()
    for given in ("", "alice-token", "secret", "None"):
        assert (await answer(client, "/login", "POST", data={"token": given}))[0] == 401


async def test_signing_in_returns_to_the_requested_page(inbox):
    client = await inbox.stranger()
    _, _, headers = await answer(client, "/history?q=iam")
    assert headers["Location"] == "/login?next=/history?q%3Diam"
    _, body, _ = await answer(client, headers["Location"])
    assert 'name="next" value="/history?q=iam"' in body
    data = {"token": token("alice"), "next": "/history?q=iam"}
    status, _, headers = await answer(client, "/login", "POST", data=data)
    assert (status, headers["Location"]) == (303, "/history?q=iam")
    assert (await answer(client, "/login?next=/history"))[2]["Location"] == "/history"


@each_row(
    "onward",
    [
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "https://evil.example",
        "",
        "a",
        "/a\r\nSet-Cookie: b=c",
        "/\t/evil.example",
        "/a\\b",
    ],
)
def test_only_a_local_path_is_redirected_to(onward):
    assert local_path(onward) == "/"


async def test_the_cookie_is_hidden_from_scripts_and_other_sites(inbox):
    client = await inbox.stranger()
    _, _, headers = await answer(client, "/login", "POST", data={"token": token("alice")})
    cookie = headers["Set-Cookie"]
    assert re.fullmatch(r"okayed=[\w-]{43}; HttpOnly; Max-Age=86400; Path=/; SameSite=Lax", cookie)


async def test_over_tls_the_cookie_is_bound_to_this_host():
    async with Inbox(url="https://approvals.example.com") as inbox:
        client = await inbox.stranger()
        _, _, headers = await answer(client, "/login", "POST", data={"token": token("alice")})
        cookie = headers["Set-Cookie"]
        assert cookie.startswith("__Host-okayed=")
        assert "; Secure" in cookie
        sent = {"Cookie": cookie.partition(";")[0]}
        assert (await answer(client, "/", headers=sent))[0] == 200


async def test_the_store_keeps_only_the_hash_of_a_session(inbox):
    client = await inbox.person()
    secret = next(iter(client.cookie_jar)).value
    assert (await inbox.store.find_login(sha256(secret))).approver == "alice"
    assert await inbox.store.find_login(secret) is None


async def test_signing_in_is_on_record_without_the_token(inbox):
    await inbox.person()
    events = await inbox.store.events()
    assert [(event.kind, event.actor, dict(event.detail)) for event in events] == [
        ("login.entered", "alice", {"how": "token"})
    ]


async def test_a_session_fixed_by_an_attacker_is_not_adopted(inbox):
    client = await inbox.stranger()
    client.cookie_jar.update_cookies({"okayed": "known-to-the-attacker"})
    await answer(client, "/login", "POST", data={"token": token("alice")})
    other = await inbox.stranger()
    other.cookie_jar.update_cookies({"okayed": "known-to-the-attacker"})
    assert (await answer(other, "/"))[0] == 303


async def test_signing_out_ends_the_session_on_the_server_and_only_that_one(inbox):
    desk, phone = await inbox.person(), await inbox.person()
    secret = next(iter(desk.cookie_jar)).value
    data = {"csrf_token": await csrf_token(desk)}
    assert (await answer(desk, "/logout", "POST", data=data))[2]["Location"] == "/login"
    desk.cookie_jar.update_cookies({"okayed": secret})
    assert (await answer(desk, "/"))[0] == 303
    assert (await answer(phone, "/"))[0] == 200


@pytest.mark.parametrize("given", ["", "0" * 64, "é"])
async def test_a_form_with_a_wrong_token_is_refused(inbox, given):
    client = await inbox.person()
    assert (await answer(client, "/logout", "POST", data={"csrf_token": given}))[0] == 403
    assert (await answer(client, "/"))[0] == 200


@pytest.mark.parametrize("same", [slice(0, 32), slice(32, 64), slice(0, 63)])
async def test_a_form_token_that_is_only_partly_the_same_is_refused(inbox, same):
    client = await inbox.person()
    whole = await csrf_token(client)
    given = ["0" if digit != "0" else "1" for digit in whole]
    given[same] = whole[same]
    for wrong in ("".join(given), whole[same]):
        assert (await answer(client, "/logout", "POST", data={"csrf_token": wrong}))[0] == 403
    assert (await answer(client, "/"))[0] == 200


async def test_a_form_token_of_another_session_is_refused(inbox):
    mine, theirs = await inbox.person("alice"), await inbox.person("bob")
    data = {"csrf_token": await csrf_token(theirs)}
    assert (await answer(mine, "/logout", "POST", data=data))[0] == 403


async def test_an_idle_session_ends(inbox):
    client = await inbox.person()
    inbox.now += IDLE - 1
    assert (await answer(client, "/"))[0] == 200
    inbox.now += IDLE - 1
    assert (await answer(client, "/"))[0] == 200
    inbox.now += IDLE
    assert (await answer(client, "/"))[0] == 303
    inbox.now -= IDLE
    assert (await answer(client, "/"))[0] == 303


async def test_an_open_tab_that_refreshes_itself_does_not_keep_a_session(inbox):
    client = await inbox.person()
    inbox.now += IDLE - 1
    assert (await answer(client, "/", headers={"Okayed-Refresh": "1"}))[0] == 200
    inbox.now += 1
    assert (await answer(client, "/"))[0] == 303


async def test_a_session_ends_after_its_maximum_age(inbox):
    client = await inbox.person()
    for _ in range(3):
        inbox.now += ABSOLUTE / 4
        assert (await answer(client, "/"))[0] == 200
    inbox.now += ABSOLUTE / 4
    assert (await answer(client, "/"))[0] == 303


async def test_a_removed_approver_is_signed_out_at_once(inbox):
    client = await inbox.person("bob")
    inbox.service.directory = Directory([inbox.directory.by_name("alice")])
    assert (await answer(client, "/"))[0] == 303


async def test_guessing_is_blocked_while_a_valid_token_and_a_link_still_work(inbox):
    client = await inbox.stranger()
    for _ in range(ATTEMPTS):
        status, body, _ = await answer(client, "/login", "POST", data={"token": "guess"})
        assert status == 401
        assert "That is not a valid approver token." in body
    assert (await answer(client, "/login", "POST", data={"token": "guess"}))[0] == 429
    assert (await answer(client, "/login/once", "POST", data={"code": "guess"}))[0] == 429
    refused = [event for event in await inbox.store.events() if event.kind == "login.refused"]
    assert [dict(event.detail) for event in refused] == [{"from": "127.0.0.1"}] * ATTEMPTS
    assert "guess" not in repr(refused)
    assert (await answer(client, "/login", "POST", data={"token": token("alice")}))[0] == 303
    assert (await answer(client, "/login/once", "POST", data={"code": await inbox.code()}))[0] == 303
    inbox.now += WINDOW
    assert (await answer(client, "/login", "POST", data={"token": "guess"}))[0] == 401


@pytest.mark.parametrize(
    ("trusted", "second"),
    [(["127.0.0.1"], 401), ([], 429), (["10.0.0.1"], 429)],
    ids=["trusted", "none", "other"],
)
async def test_wrong_tokens_behind_a_trusted_proxy_block_only_their_client(trusted, second):
    async with Inbox(proxies=TrustedProxies.parse(trusted)) as inbox:
        client = await inbox.stranger()

        async def guessed(address):
            headers = {"X-Forwarded-For": address}
            return (await answer(client, "/login", "POST", data={"token": "guess"}, headers=headers))[0]

        assert [await guessed("192.0.2.1") for _ in range(ATTEMPTS + 1)] == [401] * ATTEMPTS + [429]
        assert await guessed("192.0.2.2") == second
        refused = [event for event in await inbox.store.events() if event.kind == "login.refused"]
        assert refused[-1].detail["from"] == ("192.0.2.2" if second == 401 else "127.0.0.1")


async def test_guessing_bearer_tokens_is_blocked_while_a_valid_token_still_works(inbox):
    client = await inbox.stranger()

    async def status(given):
        return (await answer(client, "/api/v1/calls", headers={"Authorization": f"Bearer {given}"}))[0]

    assert [await status(f"guess-{n}") for n in range(ATTEMPTS + 2)] == [401] * ATTEMPTS + [429] * 2
    assert await status(token("alice")) == 200
    assert (await answer(client, "/api/v1/calls"))[0] == 401, "no token is no guess"
    assert (await answer(client, "/login", "POST", data={"token": token("alice")}))[0] == 303
    refused = [event for event in await inbox.store.events() if event.kind == "login.refused"]
    assert len(refused) == ATTEMPTS
    inbox.now += WINDOW
    assert await status("guess") == 401


async def test_signing_in_by_token_can_be_off():
    async with Inbox(token_login=False) as inbox:
        client = await inbox.stranger()
        _, body, _ = await answer(client, "/login")
        assert "organisation&#39;s proxy" in body or "organisation's proxy" in body
        assert (await answer(client, "/login", "POST", data={"token": token("alice")}))[0] == 401


async def test_a_one_time_code_works_once_and_only_when_posted(inbox):
    code = await inbox.code()
    client = await inbox.stranger()
    for _ in range(2):
        status, body, _ = await answer(client, f"/login/once/{code}")
        assert status == 200
        assert "Open the inbox" in body
    assert (await answer(client, "/"))[0] == 303
    assert (await answer(client, "/login/once", "POST", data={"code": code}))[0] == 303
    assert (await answer(client, "/"))[0] == 200
    assert (await answer(client, "/login/once", "POST", data={"code": code}))[0] == 401


async def test_a_one_time_code_expires(inbox):
    old = await inbox.code()
    inbox.now += CODE_LIFE
    client = await inbox.stranger()
    assert (await answer(client, "/login/once", "POST", data={"code": old}))[0] == 401
    assert (await answer(client, "/login/once", "POST", data={"code": await inbox.code()}))[0] == 303
    assert (await answer(client, "/login/once", "POST", data={}))[0] == 401


# Two inboxes on one store


@asynccontextmanager
async def memory(_folder):
    yield MemoryStore()


@asynccontextmanager
async def sqlite(folder):
    store = await SqliteStore.open(folder / "okayed.db", chain_key=b"key")
    yield store
    await store.close()


@pytest.fixture(params=[memory, sqlite], ids=["memory", "sqlite"])
async def pair(request, tmp_path):
    async with (
        request.param(tmp_path) as store,
        Inbox(store=store) as here,
        Inbox(store=store) as there,
    ):
        there.now = here.now
        yield here, there


async def signed_in_at(here, there):
    """Sign in at the first inbox; return a client of each, both with the session's cookie."""
    client, other = await here.person(), await there.stranger()
    other.cookie_jar.update_cookies({"okayed": next(iter(client.cookie_jar)).value})
    return client, other


async def pass_time(pair, seconds):
    """Move both clocks, after the writes so far."""
    await pair[0].store.check()
    for inbox in pair:
        inbox.now += seconds


async def test_a_person_active_at_one_inbox_is_not_signed_out_by_another(pair):
    client, other = await signed_in_at(*pair)
    assert (await answer(other, "/"))[0] == 200
    for _ in range(3):
        await pass_time(pair, IDLE / 2)
        assert (await answer(client, "/"))[0] == 200
    await pass_time(pair, IDLE - 1)
    assert (await answer(other, "/"))[0] == 200


async def test_a_session_that_is_idle_at_both_inboxes_ends_at_both(pair):
    client, other = await signed_in_at(*pair)
    await pass_time(pair, IDLE)
    assert (await answer(other, "/"))[0] == 303
    await pass_time(pair, -IDLE)
    assert (await answer(client, "/"))[0] == 303


async def test_an_inbox_that_starts_knows_when_a_person_was_last_active(pair):
    client, _ = await signed_in_at(*pair)
    await pass_time(pair, 100)
    assert (await answer(client, "/"))[0] == 200
    for later, status in ((IDLE - 1, 200), (IDLE, 303)):
        await pass_time(pair, 0)
        async with Inbox(store=pair[0].store) as started:
            started.now = pair[0].now + later
            again = await started.stranger()
            again.cookie_jar.update_cookies({"okayed": next(iter(client.cookie_jar)).value})
            assert (await answer(again, "/", headers={"Okayed-Refresh": "1"}))[0] == status


async def test_activity_is_written_at_most_once_a_minute(pair):
    client, other = await signed_in_at(*pair)
    session, signed_in = sha256(next(iter(client.cookie_jar)).value), pair[0].now
    for wait, written in (
        (RECORD_ACTIVITY_EVERY - 1, 0),
        (1, RECORD_ACTIVITY_EVERY),
        (RECORD_ACTIVITY_EVERY - 1, RECORD_ACTIVITY_EVERY),
        (1, 2 * RECORD_ACTIVITY_EVERY),
    ):
        await pass_time(pair, wait)
        for visitor in (client, other):
            assert (await answer(visitor, "/"))[0] == 200
        await pass_time(pair, 0)
        assert (await pair[0].store.find_login(session)).seen_at == signed_in + written


async def test_pages_can_be_read_while_the_store_takes_no_writes():
    class Full(MemoryStore):
        def record_activity(self, *_):
            raise StoreError("The store cannot keep up.")

    async with Inbox(store=Full()) as inbox:
        client = await inbox.person()
        inbox.now += RECORD_ACTIVITY_EVERY
        assert (await answer(client, "/"))[0] == 200


async def test_signing_out_at_one_inbox_ends_the_session_at_the_other(pair):
    client, other = await signed_in_at(*pair)
    assert (await answer(other, "/"))[0] == 200
    data = {"csrf_token": await csrf_token(client)}
    assert (await answer(client, "/logout", "POST", data=data))[0] == 303
    assert (await answer(other, "/"))[0] == 303
    assert (await answer(other, "/logout", "POST", data=data))[0] == 401
    assert (await answer(other, "/api/v1/events"))[0] == 401


async def test_a_code_of_one_inbox_signs_in_at_another_once(pair):
    here, there = pair
    code = await here.code("bob")
    other = await there.stranger()
    assert (await answer(other, "/login/once", "POST", data={"code": code}))[0] == 303
    assert ">bob<" in (await answer(other, "/"))[1]
    for inbox in pair:
        client = await inbox.stranger()
        assert (await answer(client, "/login/once", "POST", data={"code": code}))[0] == 401


async def test_a_code_posted_to_two_inboxes_at_once_signs_in_at_one(pair):
    code = await pair[0].code()
    clients = [await inbox.stranger() for inbox in (*pair, *pair, *pair)]
    answers = await asyncio.gather(
        *(answer(client, "/login/once", "POST", data={"code": code}) for client in clients)
    )
    assert sorted(status for status, _, _ in answers) == [303] + [401] * 5


async def test_a_code_expires_at_every_inbox(pair):
    here, there = pair
    code = await here.code()
    await pass_time(pair, CODE_LIFE)
    for inbox in (there, here):
        client = await inbox.stranger()
        assert (await answer(client, "/login/once", "POST", data={"code": code}))[0] == 401


async def test_the_store_keeps_only_the_hash_of_a_code(inbox):
    code = await inbox.code()
    assert await inbox.store.take_code(code) is None
    assert (await inbox.store.take_code(sha256(code))).approver == "alice"


async def test_a_removed_approver_cannot_sign_in_with_a_code(inbox):
    code = await inbox.code("bob")
    inbox.service.directory = Directory([inbox.directory.by_name("alice")])
    client = await inbox.stranger()
    assert (await answer(client, "/login/once", "POST", data={"code": code}))[0] == 401


async def test_guesses_are_counted_by_each_inbox(pair):
    for inbox in pair:
        client = await inbox.stranger()
        statuses = [
            (await answer(client, "/login", "POST", data={"token": "guess"}))[0] for _ in range(ATTEMPTS + 1)
        ]
        assert statuses == [401] * ATTEMPTS + [429]


PROXY = {"proxy_header": "X-Forwarded-Email", "proxy_peers": ("127.0.0.0/8",)}


async def test_a_trusted_proxy_names_the_user():
    async with Inbox(**PROXY) as inbox:
        client = await inbox.stranger(**{"X-Forwarded-Email": "Alice@example.com"})
        status, body, _ = await answer(client, "/")
        assert status == 200
        assert ">alice<" in body
        data = {"csrf_token": await csrf_token(client)}
        assert (await answer(client, "/logout", "POST", data=data))[0] == 303


@pytest.mark.parametrize("email", ["", "mallory@example.com", "@", "*"])
async def test_a_proxy_cannot_sign_in_an_unknown_user(email):
    async with Inbox(**PROXY) as inbox:
        client = await inbox.stranger(**{"X-Forwarded-Email": email})
        assert (await answer(client, "/"))[0] == 303


async def test_behind_a_proxy_without_a_header_a_token_still_signs_in():
    async with Inbox(**PROXY) as inbox:
        client = await inbox.person("bob")
        assert (await answer(client, "/"))[0] == 200
        headers = {"X-Forwarded-Email": "mallory@example.com"}
        assert (await answer(client, "/", headers=headers))[0] == 303


async def test_two_user_headers_from_a_proxy_are_refused():
    async with Inbox(**PROXY) as inbox:
        client = await inbox.stranger()
        headers = [("X-Forwarded-Email", "alice@example.com"), ("X-Forwarded-Email", "bob@example.com")]
        assert (await answer(client, "/", headers=headers))[0] == 303


async def test_the_form_cookie_behind_a_proxy_does_not_sign_anyone_in():
    async with Inbox(**PROXY) as inbox:
        client = await inbox.stranger(**{"X-Forwarded-Email": "alice@example.com"})
        await answer(client, "/")
        client.headers.pop("X-Forwarded-Email")
        assert (await answer(client, "/"))[0] == 303


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"proxy_header": "X-Forwarded-Email"},
        {"proxy_header": "X-Forwarded-Email", "proxy_peers": ("10.0.0.5",)},
    ],
)
async def test_the_user_header_is_trusted_only_from_the_proxy(options):
    forged = {
        "X-Forwarded-Email": "alice@example.com",
        "X-Forwarded-User": "alice",
        "X-Forwarded-For": "10.0.0.5",
        "X-Forwarded-Proto": "https",
    }
    async with Inbox(**options) as inbox:
        client = await inbox.stranger(**forged)
        assert (await answer(client, "/"))[0] == 303
        assert inbox.options.trusts(None) is False
