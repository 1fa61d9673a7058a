"""The tool catalogue: lists are requested once, in a revision the server supports; overrides beat the classifier."""

import asyncio
import sys
from pathlib import Path

import pytest
from aiohttp import web

from approvals.store.memory.store import MemoryStore
from gateway.errors import GatewayError
from gateway.tools import catalogue, discovery
from gateway.tools.catalogue import Catalogue, Override
from gateway.tools.classify.risk import Category, Risk
from gateway.tools.classify.severity import Severity
from gateway.tools.pins import Pins
from gateway.upstreams import lifecycle, stdio
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http import HttpUpstream
from gateway.upstreams.http1.pool import ConnectionPool
from gateway.upstreams.stdio import ServerCommand, StdioUpstream
from hang import HANG
from recording_server import RecordingServer, error, result

CHILD = str(Path(__file__).parents[2] / "fakes" / "stdio_server.py")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
async def http():
    async with ConnectionPool() as session:
        yield session


@pytest.fixture
async def recorder():
    async with RecordingServer() as running:
        yield running


@pytest.fixture
def known(recorder, http):
    found = Catalogue(Clock(), Pins(MemoryStore(), ()), lambda *_: None)
    found.configure({"notes": HttpUpstream(recorder.url, FixedCredentials(), http)}, {})
    return found


def lists(recorder):
    return sum(one.frame.get("method") == "tools/list" for one in recorder.received)


async def test_the_tool_list_is_requested_on_first_use_and_then_cached(known, recorder):
    tool = await known.find("notes", "create_note")
    assert (tool.classification.category, tool.definition["description"]) == (
        Category.WRITE,
        "Create a note.",
    )
    assert len(tool.hash) == 64
    await known.find("notes", "get_note")
    assert lists(recorder) == 1
    assert [tool.name for tool in known.listed_tools("notes")] == ["create_note", "delete_note", "get_note"]
    assert known.listed_tool("notes", "get_note") is not None


async def test_an_unlisted_tool_is_classified_by_its_name_and_has_no_hash(known, recorder):
    tool = await known.find("notes", "frobnicate")
    assert (tool.hash, tool.classification.category) == ("", Category.OTHER)
    await known.find("notes", "frobnicate")
    assert lists(recorder) == 1


async def test_a_stale_list_is_requested_again(known, recorder):
    before = await known.find("notes", "create_note")
    recorder.tools[1]["description"] = "Now it deletes."
    known.mark_stale("notes")
    assert (await known.find("notes", "create_note")).hash != before.hash
    assert lists(recorder) == 2


async def test_reordered_members_are_not_a_change_of_the_definition(known, recorder):
    before = await known.find("notes", "create_note")
    recorder.tools[1] = dict(reversed(recorder.tools[1].items()))
    known.mark_stale("notes")
    assert (await known.find("notes", "create_note")).hash == before.hash


async def test_a_failing_server_is_asked_again_only_after_a_delay(known, recorder):
    await recorder.runner.cleanup()
    assert "could not be reached" in await known.refresh("notes")
    assert await known.refresh("notes") is not None
    known._clock.now += catalogue.RETRY
    assert await known.refresh("notes") is not None
    assert (await known.find("notes", "get_note")).hash == ""


async def test_a_cancelled_list_request_is_repeated_by_the_next_caller(known, recorder):
    requested = asyncio.Event()

    async def silent(*_):
        requested.set()
        await asyncio.Event().wait()

    answer, recorder.answer = recorder.answer, silent
    leaving = asyncio.ensure_future(known.refresh("notes"))
    await requested.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    recorder.answer = answer
    assert await known.refresh("notes") is None
    assert (await known.find("notes", "get_note")).hash


async def test_an_override_in_the_config_beats_the_classifier(recorder, http):
    found = Catalogue(Clock(), Pins(MemoryStore(), ()), lambda *_: None)
    upstreams = {"notes": HttpUpstream(recorder.url, FixedCredentials(), http)}
    found.configure(
        upstreams,
        {
            "notes": {
                "create_note": Override(category=Category.READ),
                "get_note": Override(severity=Severity.CRITICAL),
            }
        },
    )
    tool = await found.find("notes", "create_note")
    assert (tool.classification.category, tool.classification.risk) == (Category.READ, Risk.LOW)
    assert tool.classification.evidence[0] == "Set in the operator's config."
    assert (await found.find("notes", "get_note")).classification.severity is Severity.CRITICAL
    found.configure(upstreams, {"notes": {"create_note": Override(risk=Risk.HIGH)}})
    again = found.listed_tool("notes", "create_note")
    assert (again.classification.category, again.classification.risk) == (Category.WRITE, Risk.HIGH)
    found.configure({}, {})
    assert found.listed_tool("notes", "create_note") is None


async def test_a_handshake_server_is_listed_in_a_session_that_is_then_closed(recorder, http):
    recorder.modern, recorder.session = False, "s1"
    assert len((await discovery.list_tools(HttpUpstream(recorder.url, FixedCredentials(), http))).tools) == 3
    verbs = [(one.verb, one.frame.get("method")) for one in recorder.received]
    assert verbs == [
        ("POST", "server/discover"),
        ("POST", "initialize"),
        ("POST", "notifications/initialized"),
        ("POST", "tools/list"),
        ("DELETE", None),
    ]
    assert recorder.received[-1].headers["mcp-session-id"] == "s1"


async def never(_, frame):
    await asyncio.Event().wait()


async def reset(request, frame):
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("on_delete", [never, reset])
async def test_the_list_is_valid_even_if_closing_the_session_fails(known, recorder, monkeypatch, on_delete):
    monkeypatch.setattr(lifecycle, "CLOSE_TIMEOUT", 0.05)
    recorder.modern, recorder.session, recorder.on_delete = False, "s1", on_delete
    async with asyncio.timeout(HANG):
        assert await known.refresh("notes") is None
    assert len(known.listed_tools("notes")) == 3
    assert recorder.received[-1].verb == "DELETE"


async def half_open(_, frame):
    """Open a session and answer with an error, like a server that fails during the handshake."""
    body = {"jsonrpc": "2.0", "id": frame["id"], "error": {"code": -32603, "message": "no"}}
    return web.json_response(body, headers={"Mcp-Session-Id": "s1"})


@pytest.mark.parametrize(
    "opening",
    [
        discovery.list_tools,
        lambda upstream: lifecycle.reopen_session(upstream.send, b"{}", {"mcp-session-id": "s0"}),
    ],
)
async def test_a_session_that_was_only_half_opened_is_closed(recorder, http, opening):
    recorder.modern, recorder.on_initialize = False, half_open
    with pytest.raises(GatewayError):
        await opening(HttpUpstream(recorder.url, FixedCredentials(), http))
    assert recorder.received[-1].verb == "DELETE"
    assert recorder.received[-1].headers["mcp-session-id"] == "s1"


@pytest.mark.parametrize("argument", ["--strict", "--silent"])
async def test_a_stdio_server_that_fails_before_initialize_is_restarted(monkeypatch, argument):
    monkeypatch.setattr(stdio, "PROBE_TIMEOUT", 0.05 if argument == "--silent" else 5.0)
    upstream = StdioUpstream(ServerCommand(name="child", argv=[sys.executable, CHILD, argument]), lambda: 0.0)
    async with asyncio.timeout(HANG):
        assert "echo" in [tool["name"] for tool in (await discovery.list_tools(upstream)).tools]
    await upstream.close()


@pytest.mark.parametrize("argument", ["--modern", "--legacy"])
async def test_a_stdio_server_is_listed_in_the_revision_it_supports(argument):
    upstream = StdioUpstream(ServerCommand(name="child", argv=[sys.executable, CHILD, argument]), lambda: 0.0)
    assert "echo" in [tool["name"] for tool in (await discovery.list_tools(upstream)).tools]
    await upstream.close()


async def pages(request):
    import json

    frame = json.loads(await request.read())
    if frame["method"] != "tools/list":
        return web.json_response({"jsonrpc": "2.0", "id": frame["id"], "result": {}})
    cursor = frame["params"].get("cursor")
    page = {"tools": [{"name": f"t{cursor or 0}"}, "odd"]} | (
        {} if cursor == "2" else {"nextCursor": str(int(cursor or 0) + 1)}
    )
    body = json.dumps({"jsonrpc": "2.0", "id": frame["id"], "result": page})
    return web.Response(text=f": hi\n\ndata: {body}\n\n", content_type="text/event-stream")


async def serve(handler):
    app = web.Application()
    app.router.add_post("/mcp", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"


async def test_every_page_is_read_from_event_streams_too(http):
    runner, url = await serve(pages)
    assert [
        tool["name"]
        for tool in (await discovery.list_tools(HttpUpstream(url, FixedCredentials(), http))).tools
    ] == [
        "t0",
        "t1",
        "t2",
    ]
    await runner.cleanup()


@pytest.mark.parametrize("answer", ["<html>", '{"jsonrpc":"2.0","id":"okayed","result":5}', "[]"])
async def test_a_malformed_answer_is_an_error(http, answer):
    async def odd(request):
        return web.Response(text=answer, content_type="application/json")

    runner, url = await serve(odd)
    with pytest.raises(GatewayError):
        await discovery.list_tools(HttpUpstream(url, FixedCredentials(), http))
    await runner.cleanup()


async def test_a_stream_that_ends_without_the_answer_is_an_error(http):
    async def odd(request):
        return web.Response(text=": nothing\n\n", content_type="text/event-stream")

    runner, url = await serve(odd)
    with pytest.raises(GatewayError):
        await discovery.list_tools(HttpUpstream(url, FixedCredentials(), http))
    await runner.cleanup()


async def test_a_refused_list_request_is_reported(http):
    async with RecordingServer() as recorder:
        recorder.answer = lambda _, frame: _refuse(frame)
        known = Catalogue(Clock(), Pins(MemoryStore(), ()), lambda *_: None)
        known.configure({"notes": HttpUpstream(recorder.url, FixedCredentials(), http)}, {})
        assert await known.refresh("notes")


async def _refuse(frame):
    return error(frame, -32601, "no")


def answering(value):
    """Return a handler that answers every request with these bytes as the result."""

    async def answer(request):
        head = b'{"jsonrpc":"2.0","id":"okayed","result":'
        return web.Response(body=head + value + b"}", content_type="application/json")

    return answer


@pytest.mark.parametrize("tools", [b"null", b"{}", b"5", b'"x"'])
async def test_a_tool_list_that_is_not_an_array_is_empty(http, tools):
    runner, url = await serve(answering(b'{"tools":' + tools + b"}"))
    assert (await discovery.list_tools(HttpUpstream(url, FixedCredentials(), http))).tools == []
    await runner.cleanup()


DEEP = b"[" * 100_000 + b"]" * 100_000


async def listing_fails(url, http):
    known = Catalogue(Clock(), Pins(MemoryStore(), ()), lambda *_: None)
    known.configure({"notes": HttpUpstream(url, FixedCredentials(), http)}, {})
    return await known.refresh("notes") is not None and (await known.find("notes", "get_note")).hash == ""


async def test_an_answer_nested_too_deep_is_reported_as_a_failure(http):
    runner, url = await serve(answering(b'{"tools":' + DEEP + b"}"))
    assert await listing_fails(url, http)
    await runner.cleanup()


async def test_an_invalid_protocol_version_fails_only_the_list_request(http):
    async def revision_that_no_header_can_carry(_, frame):
        return result(frame, {"protocolVersion": "2025\r\nX: y", "capabilities": {}})

    async with RecordingServer(modern=False, on_initialize=revision_that_no_header_can_carry) as recorder:
        assert await listing_fails(recorder.url, http)
