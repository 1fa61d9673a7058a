"""The stdio command: which gateway it joins, and when it runs an embedded one."""

import asyncio
import json
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from aiohttp_listener import open_listener
from approvals.errors import StoreError, StoreTaken
from approvals.store.run_lock import hold_run_lock
from gateway.app.config import load_config, parse_config
from gateway.app.config_file import read_listen
from gateway.app.gateway import assemble
from gateway.app.serving import serve
from gateway.cli import stdio
from gateway.cli.embedded import EmbeddedGateway
from gateway.cli.run import open_released_store
from gateway.cli.stdio import GatewayLocator, check_url, open_client
from gateway.config.problems import ConfigProblems
from gateway.errors import NotSentError, UserError
from gateway.fronts.connection_limits import Connections
from gateway.upstreams.reply import read_body
from gateways import call, running, text
from hang import HANG
from process import sha256
from recording_server import RecordingServer
from rows import each_row

CONFIG = """
listen: {listen}
inbox: {{listen: "127.0.0.1:0"}}
store: "sqlite:///okayed.db"
servers: {{notes: {{url: "{url}"}}}}
agents: [{{name: ci, token_sha256: {token}}}]
policy: {{default: allow}}
"""


def write(folder, recorder, listen="127.0.0.1:0", **more):
    path = folder / "okayed.yaml"
    token = more.get("token", sha256("ci-token"))
    path.write_text(CONFIG.format(listen=listen, url=recorder.url, token=token))
    path.chmod(0o600)
    return path


@asynccontextmanager
async def inside(path, *, server="notes", token="ci-token", at="http://127.0.0.1:1"):
    """The locator of a command that runs an embedded gateway if none answers at *at*."""
    async with open_client(at) as http, asyncio.TaskGroup() as tasks:
        gateway = EmbeddedGateway(path, server, token, tasks, left := asyncio.Event())
        yield GatewayLocator(server, token, http, at=at, start_gateway=gateway.start)
        left.set()


async def note(way):
    """Read a note; returns the server's text."""
    async with asyncio.timeout(HANG):
        reply = await way.exchange("POST", json.dumps(call("get_note")).encode(), {})
        return text(json.loads(await read_body(reply)))


@pytest.fixture
async def recorder():
    async with RecordingServer() as recorder:
        yield recorder


async def test_joining_needs_only_the_address_and_the_token(monkeypatch, tmp_path):
    async with running(more=f"agents: [{{name: ci, token_sha256: {sha256('ci-token')}}}]") as gateway:
        async with open_client(at := check_url(gateway.url)) as http:
            assert await note(GatewayLocator("notes", "ci-token", http, at=at)) == "ran get_note"


async def test_a_gateway_that_listens_on_a_unix_socket_is_joined(tmp_path, recorder):
    config = load_config(write(tmp_path, recorder, at := f"unix:{tmp_path}/agents.sock"), {})
    async with assemble(config) as gateway, serve(gateway), open_client(at) as http:
        assert await note(GatewayLocator("notes", "ci-token", http, at=at)) == "ran get_note"


@each_row("url", ["127.0.0.1:8808", "ftp://gateway", "http://", "unix", "gateway"])
def test_an_invalid_gateway_address_is_refused(url):
    with pytest.raises(
        UserError, match=r"not the address of a gateway; write one such as http://127.0.0.1:8808"
    ):
        check_url(url)


def test_the_url_of_a_server_is_accepted_as_the_gateways_address():
    assert check_url("http://127.0.0.1:8808/mcp/notes") == check_url("http://127.0.0.1:8808/")


def test_listen_is_read_without_the_rest_of_the_config(tmp_path):
    path = tmp_path / "okayed.yaml"
    for written, listen in {
        "listen: 127.0.0.1:9\nslack: {bot_token: '${UNSET}', app_token: '${file:/no/such/file}'}": "127.0.0.1:9",
        "listen: 'unix:${HERE}/a.sock'": "unix:/run/a.sock",
        "servers: {}": "127.0.0.1:8808",
    }.items():
        path.write_text(written)
        assert read_listen(path, {"HERE": "/run"}) == listen


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("listen: nowhere", "'nowhere' is not host:port or unix:/path"),
        ("listen: '${UNSET}'", "listen: the environment variable UNSET is not set"),
        ("listen: [a", "This is not valid YAML"),
        ("", "The config is empty"),
    ],
)
def test_a_config_with_an_invalid_listen_is_a_problem(tmp_path, written, message):
    path = tmp_path / "okayed.yaml"
    path.write_text(written)
    with pytest.raises(ConfigProblems, match=message):
        read_listen(path, {})


async def test_an_embedded_gateway_runs_if_none_answers(tmp_path, recorder):
    async with inside(write(tmp_path, recorder)) as way:
        assert await note(way) == "ran get_note"


async def test_another_command_joins_it_and_runs_the_next_one(tmp_path, recorder):
    path = write(tmp_path, recorder, at := f"unix:{tmp_path}/agents.sock")
    async with AsyncExitStack() as later:
        async with inside(path, at=at) as first:
            assert await note(first) == "ran get_note"
            second = await later.enter_async_context(inside(path, at=at))
            assert await note(second) == "ran get_note"
        assert await note(second) == "ran get_note"


async def test_the_stdio_command_authenticates_with_its_token(tmp_path, recorder):
    path = write(tmp_path, recorder)
    async with inside(path, token="other") as way:
        with pytest.raises(UserError, match="OKAYED_AGENT_TOKEN"):
            await way.find_gateway()
        with pytest.raises(NotSentError, match="OKAYED_AGENT_TOKEN"):
            await note(way)
    async with inside(path, server="nonesuch") as way:
        with pytest.raises(UserError, match="no server 'nonesuch'; it has notes"):
            await way.find_gateway()


async def test_an_unusable_store_is_reported_at_once(tmp_path, recorder):
    path = write(tmp_path, recorder)
    (tmp_path / "okayed.db").write_text("no database at all")
    async with inside(path) as way:
        with pytest.raises(StoreError, match="cannot be used"):
            await way.find_gateway()


async def test_while_another_process_has_the_store_or_the_address_a_request_waits_and_gets_the_reason(
    monkeypatch, tmp_path, recorder
):
    path = write(tmp_path, recorder)
    monkeypatch.setattr(stdio, "MAX_WAIT", 0.0)
    async with assemble(load_config(path, {})), inside(path) as way:
        assert not await way.find_gateway()
        with pytest.raises(NotSentError, match=r"No gateway answers at .*Another gateway uses"):
            await note(way)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = write(tmp_path, recorder, f"127.0.0.1:{taken.getsockname()[1]}")
        async with inside(path) as way:
            assert not await way.find_gateway()
            with pytest.raises(NotSentError, match=r"No gateway answers at .*in use"):
                await note(way)


async def test_a_client_may_disconnect_while_its_gateway_starts(tmp_path, recorder):
    async with inside(write(tmp_path, recorder)) as way:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await way.exchange("POST", b"{}", {})


async def test_while_a_run_holds_the_lock_no_embedded_gateway_starts_and_a_running_one_stops(
    monkeypatch, tmp_path, recorder
):
    path = write(tmp_path, recorder, at := f"unix:{tmp_path}/agents.sock")
    monkeypatch.setattr("gateway.cli.embedded.POLL", 0.01)
    monkeypatch.setattr(stdio, "MAX_WAIT", 0.0)
    async with inside(path, at=at) as way:
        with hold_run_lock(tmp_path / "okayed.db"):
            assert not await way.find_gateway()
            with pytest.raises(NotSentError, match="okayed run` has the store"):
                await note(way)
        assert await way.find_gateway()
        assert await note(way) == "ran get_note"
        with hold_run_lock(tmp_path / "okayed.db"):
            async with asyncio.timeout(HANG):
                store = await open_released_store(load_config(path, {}), stop=asyncio.Event())
            await store.close()


async def test_a_stopped_run_does_not_wait_for_the_store(tmp_path, recorder):
    config, stop = load_config(write(tmp_path, recorder), {}), asyncio.Event()
    stop.set()
    async with assemble(config):
        with pytest.raises(StoreTaken):
            await open_released_store(config, stop=stop)


async def test_a_process_that_reports_no_role_is_not_a_gateway():
    responses = [
        web.json_response({"status": "ok"}),
        web.json_response([]),
        web.Response(text="ok"),
        web.Response(status=404),
    ]

    async def answer(_):
        return responses.pop()

    app = web.Application()
    app.router.add_get("/healthz", answer)
    async with open_listener(app, "127.0.0.1:0", Connections("test", 9)) as at, open_client("") as http:

        async def none():
            raise NotSentError

        way = GatewayLocator("notes", "", http, at=f"http://{at}", start_gateway=none)
        assert [await way.find_gateway() for _ in range(4)] == [False] * 4


async def test_an_exchange_refused_by_a_gateway_waits_and_one_refused_by_a_server_does_not(
    monkeypatch,
):
    unsent, came = {"Okayed-Unsent": "1"}, []

    async def answer(request):
        came.append(request.method)
        return responses.pop(0)

    app = web.Application()
    app.router.add_post("/mcp/notes", answer)
    monkeypatch.setattr(stdio, "PAUSE", 0.0)
    async with open_listener(app, "127.0.0.1:0", Connections("test", 9)) as at, open_client("") as http:
        way = GatewayLocator("notes", "", http, at=f"http://{at}")
        responses = [
            web.Response(status=503, headers=unsent),
            web.Response(status=503, headers=unsent),
            web.Response(status=202),
        ]
        assert (await way.exchange("POST", b"{}", {})).status == 202
        responses = [web.Response(status=503)]
        assert (await way.exchange("POST", b"{}", {})).status == 503
        monkeypatch.setattr(stdio, "MAX_WAIT", 0.0)
        responses = [web.Response(status=503, headers=unsent)]
        assert (await way.exchange("POST", b"{}", {})).status == 503
    assert len(came) == 5


async def test_a_gateway_waits_for_a_free_inbox_port_as_for_a_free_agents_port(
    monkeypatch, tmp_path, recorder
):
    monkeypatch.setattr(stdio, "MAX_WAIT", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = write(tmp_path, recorder)
        path.write_text(
            path.read_text().replace(
                'inbox: {listen: "127.0.0.1:0"}', f'inbox: {{listen: "127.0.0.1:{taken.getsockname()[1]}"}}'
            )
        )
        async with inside(path) as way:
            assert not await way.find_gateway()
            with pytest.raises(NotSentError, match=r"No gateway answers at .*in use"):
                await note(way)


async def test_an_embedded_gateway_gives_way_to_a_run_without_draining(monkeypatch, tmp_path, recorder):
    """It has no load balancer, and the `run` waits for it."""
    path = write(tmp_path, recorder)
    path.write_text(f"drain: 1h\n{path.read_text()}")
    monkeypatch.setattr("gateway.cli.embedded.POLL", 0.01)
    async with inside(path) as way:
        assert await note(way) == "ran get_note"
        with hold_run_lock(tmp_path / "okayed.db"):
            async with asyncio.timeout(HANG):
                await (await open_released_store(load_config(path, {}), stop=asyncio.Event())).close()


CHILD = Path(__file__).parents[2] / "fakes" / "stdio_server.py"


@pytest.mark.parametrize(("inside", "started"), [(True, ["s7"]), (False, sorted(f"s{n}" for n in range(13)))])
async def test_an_embedded_gateway_starts_only_the_server_that_is_used(tmp_path, inside, started):
    note = tmp_path / "started"
    servers = "\n".join(
        f"  s{number}: {{command: [sh, -c, 'echo s{number} >> {note}; {f'exec {sys.executable} {CHILD}' if number == 7 else ''}']}}"
        for number in range(13)
    )
    config = parse_config(f"store: 'memory:'\nservers:\n{servers}\npolicy: {{default: allow}}\n", {}, str)
    async with assemble(config, embedded=inside) as gateway, asyncio.timeout(HANG):
        await gateway.refresh_tools()
        assert (await gateway.catalogue.find("s7", "echo")).hash
        await gateway.refresh_tools()
        assert await gateway.readiness_problem() is None
    assert sorted(set(note.read_text().split())) == started
