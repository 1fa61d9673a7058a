"""The command line's API client: its address, and its errors when no gateway answers."""

import asyncio
from contextlib import asynccontextmanager
from importlib.metadata import version

import pytest
from aiohttp import web

from aiohttp_listener import open_listener
from approval_fixtures import held
from approvals.model import Decision
from gateway.app.config import load_config
from gateway.app.gateway import assemble
from gateway.app.serving import serve
from gateway.cli import api, review
from gateway.cli.api import RequestRefused, connect
from gateway.config.addresses import local_address
from gateway.fronts.connection_limits import Connections
from hang import HANG
from process import free_ports, sha256, token
from rows import each_row

CONFIG = """
listen: 127.0.0.1:0
store: "memory:"
servers: {{shop: {{url: "http://127.0.0.1:9/"}}}}
approvers: [{{name: alice, token_sha256: {alice}}}]
policy: {{default: require_approval}}
inbox: {{listen: "{listen}", url: "https://approvals.example.com"}}
"""


@each_row(
    ("listen", "url"),
    [
        ("127.0.0.1:8809", "http://127.0.0.1:8809"),
        ("0.0.0.0:8809", "http://127.0.0.1:8809"),
        ("[::]:8809", "http://[::1]:8809"),
        ("[fd00::1]:8809", "http://[fd00::1]:8809"),
        ("unix:/run/inbox", "unix:/run/inbox"),
    ],
)
def test_the_local_address_of_a_listener(listen, url):
    assert local_address(listen) == url


@pytest.mark.parametrize("listen", ["0.0.0.0:{port}", "unix:{folder}/inbox"])
async def test_a_command_reaches_the_inbox_that_the_config_describes(listen, tmp_path, monkeypatch):
    [port] = free_ports(1)
    file = tmp_path / "okayed.yaml"
    file.write_text(
        CONFIG.format(alice=sha256(token("alice")), listen=listen.format(port=port, folder=tmp_path))
    )
    file.chmod(0o600)
    monkeypatch.setenv("OKAYED_TOKEN", token("alice"))
    async with assemble(load_config(file, {})) as gateway, serve(gateway):
        assert await asyncio.to_thread(api.call_api, file, lambda alice: alice.calls("pending")) == []


async def test_a_running_call_is_given_up_from_a_terminal(tmp_path, monkeypatch, capsys):
    [port] = free_ports(1)
    file = tmp_path / "okayed.yaml"
    file.write_text(CONFIG.format(alice=sha256(token("alice")), listen=f"127.0.0.1:{port}"))
    file.chmod(0o600)
    monkeypatch.setenv("OKAYED_TOKEN", token("alice"))
    async with assemble(load_config(file, {})) as gateway, serve(gateway):
        service = gateway.service
        call = await service.hold(held(service.clock()))
        alice = service.directory.by_name("alice")
        await service.review(call.id, alice, Decision.APPROVE, via="cli", digest=call.digest)
        await service.claim(call.id, lambda _: None)
        await asyncio.to_thread(review.give_up, file, call.id, "it hangs", as_json=False)
        assert capsys.readouterr().out.endswith("iam/put_user_policy: in_doubt\n")
        assert (await service.get(call.id)).note == "alice gave it up: it hangs"


@asynccontextmanager
async def breaking():
    """Serve an event stream that breaks off."""

    async def events(request):
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"event: inbox\ndata: 0\n\n")
        request.transport.close()
        return answer

    async def calls(_):
        return web.json_response({"calls": [], "next": None})

    app = web.Application()
    app.add_routes([web.get("/api/v1/events", events), web.get("/api/v1/calls", calls)])
    async with open_listener(app, "127.0.0.1:0", Connections("agents", 10)) as at:
        yield f"http://{at}"


async def test_a_gateway_that_stops_during_watch_is_one_sentence():
    async with breaking() as url, connect(url, "") as anybody, asyncio.timeout(HANG):
        with pytest.raises(
            RequestRefused, match=f"^No gateway answers at {url}; start one with: okayed run$"
        ):
            await anybody.watch(lambda _: None)


async def test_a_missing_socket_is_one_sentence(tmp_path):
    async with connect(f"unix:{tmp_path}/inbox", "") as anybody:
        with pytest.raises(
            RequestRefused, match=f"^No gateway answers at unix:{tmp_path}/inbox; start one with"
        ):
            await anybody.calls("pending")


@asynccontextmanager
async def inbox(answer):
    """Serve an inbox API with these answers; yields its address and the requests it got."""
    requests = []

    async def calls(request):
        requests.append(request)
        return web.json_response(answer(request))

    app = web.Application()
    app.router.add_get("/api/v1/calls", calls)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", requests
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("url", ["foo", "127.0.0.1:8809", "http://", "http://[::1", "ftp://127.0.0.1"])
async def test_an_invalid_address_is_one_sentence(url):
    with pytest.raises(
        RequestRefused, match="is not the address of an inbox; set OKAYED_URL to one such as http:"
    ):
        async with connect(url, "token") as client:
            await client.calls("pending")


async def test_the_api_learns_the_version_of_the_command_line():
    async with inbox(lambda _: {"calls": [], "next": None}) as (url, requests):
        async with connect(url, "token") as client:
            await client.calls("pending")
    assert requests[0].headers["User-Agent"] == f"okayed/{version('okayed')}"


async def test_a_token_from_a_file_may_end_in_a_newline():
    async with inbox(lambda _: {"calls": [], "next": None}) as (url, requests):
        async with connect(url, "token\n") as client:
            assert await client.calls("pending") == []
        async with connect(url, "\n") as client:
            assert await client.calls("pending") == []
    assert [request.headers.get("Authorization") for request in requests] == ["Bearer token", None]


async def test_calls_are_requested_page_by_page():
    pages = {None: ([{"id": "hold_3"}, {"id": "hold_2"}], "hold_2"), "hold_2": ([{"id": "hold_1"}], None)}

    def answer(request):
        calls, following = pages[request.query.get("before")]
        return {"calls": calls, "next": following}

    async with inbox(answer) as (url, _), connect(url, "token") as client:
        assert [call["id"] for call in await client.calls("pending")] == ["hold_3", "hold_2", "hold_1"]
