"""The API's client of the command line: which address it asks, over what, and what it says of one that is gone."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from gateway import cli
from gateway.addresses import within
from gateway.app import assembled
from gateway.commands.reviewing import Refused, api
from gateway.config import load
from gateway.serving import listener, serving
from process import free_ports, sha256, token

CONFIG = """
listen: 127.0.0.1:0
store: "memory:"
servers: {{shop: {{url: "http://127.0.0.1:9/"}}}}
approvers: [{{name: alice, token_sha256: {alice}}}]
policy: {{default: require_approval}}
inbox: {{listen: "{listen}", url: "https://approvals.example.com"}}
"""


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8809", "http://127.0.0.1:8809"),
        ("0.0.0.0:8809", "http://127.0.0.1:8809"),
        ("[::]:8809", "http://[::1]:8809"),
        ("[fd00::1]:8809", "http://[fd00::1]:8809"),
        ("unix:/run/inbox", "unix:/run/inbox"),
    ],
)
def test_where_a_listener_is_reached_from_its_own_machine(listen, url):
    assert within(listen) == url


@pytest.mark.parametrize("listen", ["0.0.0.0:{port}", "unix:{folder}/inbox"])
async def test_a_command_reaches_the_inbox_of_its_config_where_it_listens(listen, tmp_path, monkeypatch):
    [port] = free_ports(1)
    file = tmp_path / "holdpoint.yaml"
    file.write_text(
        CONFIG.format(alice=sha256(token("alice")), listen=listen.format(port=port, folder=tmp_path))
    )
    file.chmod(0o600)
    monkeypatch.setenv("HOLDPOINT_TOKEN", token("alice"))
    async with assembled(load(file, {})) as gateway, serving(gateway):
        assert await asyncio.to_thread(cli._ask, file, lambda alice: alice.calls("pending")) == []


@asynccontextmanager
async def breaking():
    """A gateway that goes away in the middle of a stream."""

    async def events(request):
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"event: inbox\ndata: 0\n\n")
        request.transport.close()
        return answer

    async def calls(_):
        return web.json_response({"calls": []})

    app = web.Application()
    app.add_routes([web.get("/api/v1/events", events), web.get("/api/v1/calls", calls)])
    async with listener(app, "127.0.0.1:0") as at:
        yield f"http://{at}"


async def test_a_gateway_that_goes_away_while_it_is_watched_is_one_sentence():
    async with breaking() as url, api(url, "") as anybody, asyncio.timeout(5):
        with pytest.raises(Refused, match=f"^No gateway answers at {url}; start one with: holdpoint run$"):
            await anybody.watch(lambda _: None)


async def test_a_socket_that_is_not_there_is_one_sentence(tmp_path):
    async with api(f"unix:{tmp_path}/inbox", "") as anybody:
        with pytest.raises(Refused, match=f"^No gateway answers at unix:{tmp_path}/inbox; start one with"):
            await anybody.calls("pending")
