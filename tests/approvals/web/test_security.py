"""The checks before every route and the headers of every response."""

import pytest

from inbox import Inbox, token

PATHS = (
    "/",
    "/login",
    "/history",
    "/calls/hold_1",
    "/api/v1/calls",
    "/healthz",
    "/static/inbox.css",
    "/no/such/page",
)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}


async def answer(client, path, method="GET", **more):
    async with client.request(method, path, allow_redirects=False, **more) as got:
        return got.status, await got.text(), got.headers


@pytest.mark.parametrize("path", PATHS)
async def test_every_response_has_the_security_headers(inbox, path):
    _, _, headers = await answer(await inbox.stranger(), path)
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert headers["Server"] == "okayed"


async def test_responses_over_tls_set_hsts():
    async with Inbox(url="https://approvals.example.com") as inbox:
        _, _, headers = await answer(await inbox.stranger(), "/healthz")
    assert headers["Strict-Transport-Security"] == "max-age=31536000"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8809",
        "0.0.0.0",
        "2130706433",
        "localhost.evil.example",
        "a@127.0.0.1",
        "127.0.0.1:x",
        "",
    ],
)
async def test_a_rebound_host_name_is_refused_on_every_route(inbox, path, host):
    status, body, _ = await answer(await inbox.person(), path, headers={"Host": host})
    assert status == 421
    assert host not in body or not host


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "[::1]:8809", "127.0.0.1"])
async def test_loopback_names_are_served_on_any_port(inbox, host):
    status, _, _ = await answer(await inbox.stranger(), "/healthz", headers={"Host": host})
    assert status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("approvals.example.com", 200),
        ("approvals.example.com:443", 200),
        ("approvals.example.com:8443", 421),
        ("inbox.cluster.local:8809", 200),
        ("example.com", 421),
    ],
)
async def test_only_the_configured_names_are_served(host, status):
    options = {"url": "https://approvals.example.com", "hosts": frozenset({"inbox.cluster.local"})}
    async with Inbox(**options) as inbox:
        got, _, _ = await answer(await inbox.stranger(), "/healthz", headers={"Host": host})
    assert got == status


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1:1",
        "http://0.0.0.0",
        "http://[::1]",
    ],
)
async def test_a_foreign_origin_is_refused_on_every_route(inbox, path, origin):
    status, _, _ = await answer(await inbox.person(), path, headers={"Origin": origin})
    assert status == 403


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("approvals.example.com", "https://approvals.example.com", 200),
        ("approvals.example.com", "http://approvals.example.com", 403),
        ("localhost:8809", "http://localhost:8809", 200),
        ("localhost:8809", "https://localhost:8809", 403),
        ("localhost:8809", "http://127.0.0.1:8809", 403),
        ("inbox.cluster.local", "http://inbox.cluster.local", 200),
    ],
)
async def test_the_allowed_origin_depends_on_the_requested_host(host, origin, status):
    options = {"url": "https://approvals.example.com", "hosts": frozenset({"inbox.cluster.local"})}
    async with Inbox(**options) as inbox:
        headers = {"Host": host, "Origin": origin}
        assert (await answer(await inbox.stranger(), "/login", headers=headers))[0] == status


async def test_a_second_origin_is_refused_beside_a_valid_one(inbox):
    client = await inbox.stranger()
    headers = [("Origin", inbox.here), ("Origin", "https://evil.example")]
    async with client.get("/login", headers=headers) as got:
        assert got.status in {400, 403}


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
async def test_a_form_from_another_site_is_refused(inbox, site):
    client = await inbox.stranger()
    status, _, _ = await answer(
        client, "/login", "POST", data={"token": token("alice")}, headers={"Sec-Fetch-Site": site}
    )
    assert status == 403


async def test_a_form_without_origin_and_fetch_metadata_is_refused(inbox):
    client = await inbox.stranger()
    client.headers.pop("Sec-Fetch-Site")
    data = {"token": token("alice")}
    assert (await answer(client, "/login", "POST", data=data))[0] == 403
    assert (await answer(client, "/login", "POST", data=data, headers={"Origin": inbox.here}))[0] == 303


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2f__init__.py",
        "/static/%2e%2e/__init__.py",
        "/static/%252e%252e/__init__.py",
        "/static/..%5c__init__.py",
        "/static/inbox.css%00.svg",
        "/static/",
        "/static//etc/passwd",
    ],
)
async def test_files_outside_the_static_folder_are_not_served(inbox, path):
    from yarl import URL

    client = await inbox.stranger()
    async with client.get(URL(inbox.here + path, encoded=True)) as got:
        assert got.status in {403, 404}
        assert "import" not in await got.text()


async def test_an_unknown_page_is_404_and_echoes_nothing(inbox):
    status, body, _ = await answer(await inbox.person(), "/no/<script>alert(1)</script>")
    assert status == 404
    assert "Not found." in body
    assert "alert" not in body


async def test_a_wrong_method_gets_the_allowed_ones(inbox):
    status, body, headers = await answer(await inbox.person(), "/healthz", "DELETE")
    assert (status, headers["Allow"]) == (405, "GET,HEAD")
    assert "Method not allowed." in body


async def test_a_method_override_is_ignored(inbox):
    client = await inbox.person()
    status, _, _ = await answer(client, "/", headers={"X-HTTP-Method-Override": "POST"})
    assert status == 200


async def test_an_internal_error_shows_one_sentence_and_no_details(caplog):
    def broken():
        raise RuntimeError("the secret is 4711")

    async with Inbox(metrics=broken) as inbox:
        status, body, headers = await answer(await inbox.stranger(), "/metrics")
    assert status == 500
    assert "Something went wrong." in body
    assert "4711" not in body
    assert "Traceback" not in body
    assert headers["X-Frame-Options"] == "DENY"
    assert "A request to the inbox failed" in caplog.text


async def test_metrics_and_slack_are_served_when_configured():
    from aiohttp import web

    async def slack(request):
        return web.Response(text=await request.text())

    def metrics():
        return b"calls 3\n", "text/plain; version=0.0.4; charset=utf-8"

    async with Inbox(metrics=metrics, slack_actions=slack) as inbox:
        client = await inbox.stranger()
        client.headers.pop("Sec-Fetch-Site")
        assert (await answer(client, "/metrics"))[1] == "calls 3\n"
        assert (await answer(client, "/slack/actions", "POST", data=b"payload"))[1] == "payload"


async def test_a_body_that_is_too_large_is_refused(inbox):
    client = await inbox.person()
    status, body, _ = await answer(client, "/logout", "POST", data={"csrf_token": "x" * 300_000})
    assert status == 413
    assert "The request is too large." in body
