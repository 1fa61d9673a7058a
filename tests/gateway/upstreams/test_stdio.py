"""Stdio servers as Streamable HTTP: sessions, ids, crashes, and no leftover processes."""

import asyncio
import contextlib
import json
import logging
import os
import sys
from pathlib import Path

import pytest
import uvloop

from gateway.errors import (
    BusyError,
    ConnectionLostError,
    NotSentError,
    ResponseTooLargeError,
    UnknownSessionError,
    UseInitializeError,
)
from gateway.upstreams import child, sessions, stdio
from gateway.upstreams.child import Child
from gateway.upstreams.reply import read_body
from gateway.upstreams.stdio import ServerCommand, StdioUpstream
from gateway.wire import protocol, sse
from hang import HANG

CHILD = str(Path(__file__).parents[2] / "fakes" / "stdio_server.py")
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
VERSION = {"MCP-Protocol-Version": "2026-07-28"}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def frame(method: str, params: dict | None = None, id=1) -> bytes:
    ours = (
        {"jsonrpc": "2.0", "method": method}
        | ({} if id is None else {"id": id})
        | ({} if params is None else {"params": params})
    )
    return json.dumps(ours).encode()


def calling(tool: str, id=1, **params) -> bytes:
    return frame("tools/call", {"name": tool, "arguments": {}, **params}, id)


def modern(tool: str, id=1, **params) -> bytes:
    return calling(tool, id, **{"_meta": META, **params})


async def frames(reply) -> list[dict]:
    try:
        if reply.streams:
            return [json.loads(event.data) async for event in sse.split_events(reply.chunks) if event.data]
        return [json.loads(await read_body(reply))]
    finally:
        reply.close()


def text(answer: dict) -> str:
    return answer["result"]["content"][0]["text"]


class Server(StdioUpstream):
    """An upstream with a session, for handshake revisions."""

    async def opened(self) -> dict:
        reply = await self.send(
            "POST", frame("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 0), {}
        )
        assert (await frames(reply))[0]["id"] == 0
        headers = {"Mcp-Session-Id": reply.header("mcp-session-id")}
        assert (await self.send("POST", frame("notifications/initialized", id=None), headers)).status == 202
        return headers


@pytest.fixture
async def clock():
    return Clock()


@pytest.fixture
async def server(clock):
    upstream = Server(
        ServerCommand(name="child", argv=[sys.executable, CHILD], env={"COLOUR": "blue"}), clock
    )
    yield upstream
    await upstream.close()


@pytest.fixture
async def shared(clock):
    upstream = Server(ServerCommand(name="child", argv=[sys.executable, CHILD, "--modern"]), clock)
    yield upstream
    await upstream.close()


async def test_each_session_has_its_own_child(server):
    first, second = await server.opened(), await server.opened()
    assert first != second
    pids = {session.connection.process.pid for session in server.sessions.values()}
    assert len(pids) == 2


async def test_a_single_response_is_json_with_the_clients_id(server):
    headers = await server.opened()
    for request_id in ("x", 7, 0):
        reply = await server.send("POST", calling("echo", request_id), headers)
        assert reply.media_type == "application/json"
        [answer] = await frames(reply)
        assert answer["id"] == request_id


async def test_requests_with_the_same_id_each_get_their_own_response(server):
    headers = await server.opened()
    replies = await asyncio.gather(
        *(server.send("POST", calling("echo", 1, _meta={"n": n}), headers) for n in range(5))
    )
    answers = [json.loads(text((await frames(reply))[0]))["_meta"]["n"] for reply in replies]
    assert answers == [0, 1, 2, 3, 4]


async def test_progress_arrives_in_a_stream_with_the_clients_own_token(server):
    headers = await server.opened()
    reply = await server.send("POST", calling("progress", 1, _meta={"progressToken": "mine"}), headers)
    first, second, answer = await frames(reply)
    assert [first["params"]["progressToken"], second["params"]["progressToken"]] == ["mine", "mine"]
    assert answer["id"] == 1


async def test_a_servers_request_reaches_the_client_and_its_answer_the_server(server):
    headers = await server.opened()
    reply = await server.send("POST", calling("ask"), headers)
    events = sse.split_events(reply.chunks)
    question = json.loads((await anext(events)).data)
    assert (question["method"], question["id"]) == ("roots/list", "s1")
    said = json.dumps({"jsonrpc": "2.0", "id": "s1", "result": {"roots": []}}).encode()
    assert (await server.send("POST", said, headers)).status == 202
    assert "you said" in text(json.loads((await anext(events)).data))
    reply.close()


async def test_messages_outside_of_requests_arrive_on_the_servers_own_stream(server):
    headers = await server.opened()
    await frames(await server.send("POST", calling("announce"), headers))
    stream = await server.send("GET", b"", headers)
    event = await anext(sse.split_events(stream.chunks))
    assert json.loads(event.data)["method"] == "notifications/tools/list_changed"
    assert (await server.send("GET", b"", headers)).status == 409
    stream.close()
    assert (await server.send("GET", b"", headers)).status == 200


async def test_noise_on_stdout_is_dropped_and_stderr_is_logged(server, caplog):
    caplog.set_level(logging.INFO, "okayed.servers")
    headers = await server.opened()
    [answer] = await frames(await server.send("POST", calling("noise"), headers))
    assert text(answer) == "after the noise"
    async with asyncio.timeout(HANG):
        while "a line for the log" not in caplog.text:
            await asyncio.sleep(0)
    assert "not JSON-RPC" in caplog.text


async def test_a_response_without_a_pending_request_is_dropped(server):
    headers = await server.opened()
    assert text((await frames(await server.send("POST", calling("wrong_id"), headers)))[0]) == "the right one"


async def test_a_child_that_ends_fails_its_requests_and_loses_its_session(server):
    headers = await server.opened()
    with pytest.raises(ConnectionLostError):
        await server.send("POST", calling("crash"), headers)
    with pytest.raises(UnknownSessionError):
        await server.send("POST", calling("echo"), headers)
    assert server.sessions == {}


async def test_a_line_without_an_end_stops_the_server(server):
    headers = await server.opened()
    with pytest.raises(ConnectionLostError):
        await server.send("POST", calling("long_line"), headers)


async def test_a_child_has_a_clean_environment(server, monkeypatch):
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    headers = await server.opened()
    names = text((await frames(await server.send("POST", calling("environment"), headers)))[0]).split(",")
    assert set(names) - {"LC_CTYPE"} == {"PATH", "HOME", "COLOUR"} & set(names) | {"COLOUR", "PATH"} | (
        {"HOME"} & set(os.environ)
    )


async def test_an_unknown_session_is_refused_and_a_deleted_one_too(server):
    with pytest.raises(UnknownSessionError):
        await server.send("POST", calling("echo"), {"Mcp-Session-Id": "guess"})
    headers = await server.opened()
    behind = next(iter(server.sessions.values())).connection
    assert (await server.send("DELETE", b"", headers)).status == 200
    assert behind.process.returncode is not None
    with pytest.raises(UnknownSessionError):
        await server.send("POST", calling("echo"), headers)


async def test_an_idle_session_is_closed(server, clock):
    headers = await server.opened()
    clock.now += sessions.IDLE + 1
    await server.opened()
    with pytest.raises(UnknownSessionError):
        await server.send("POST", calling("echo"), headers)


async def test_a_session_that_listens_or_waits_is_not_idle(server, clock):
    headers = await server.opened()
    stream = await server.send("GET", b"", headers)
    clock.now += sessions.IDLE + 1
    await frames(await server.send("POST", calling("echo"), headers))
    stream.close()


async def test_the_number_of_sessions_is_limited(server):
    for _ in range(sessions.MAX_SESSIONS):
        server.sessions[str(len(server.sessions))] = next(
            iter(server.sessions.values()), None
        ) or await _session(server)
    with pytest.raises(BusyError):
        await server.opened()
    for name in list(server.sessions)[1:]:
        del server.sessions[name]


async def _session(server):
    await server.opened()
    return server.sessions.pop(next(iter(server.sessions)))


async def test_simultaneous_openings_do_not_exceed_the_limit(clock, monkeypatch):
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    started = []

    class Counted(ServerCommand):
        async def start(self):
            started.append(await ServerCommand.start(self))
            return started[-1]

    upstream = StdioUpstream(Counted(name="tiny", argv=["/bin/sh", "-c", TINY]), clock)
    opening = [upstream.send("POST", frame("initialize", {}), {}) for _ in range(10)]
    outcomes = await asyncio.gather(*opening, return_exceptions=True)
    assert sum(isinstance(outcome, BusyError) for outcome in outcomes) == 7
    assert len(started) == 3
    await upstream.close()


async def test_a_missing_program_is_sent_nothing(clock):
    upstream = Server(ServerCommand(name="gone", argv=["/no/such/program"]), clock)
    with pytest.raises(NotSentError, match="could not be started"):
        await upstream.opened()


async def test_a_cancellation_reaches_the_server_with_the_servers_id(server, caplog):
    caplog.set_level(logging.INFO, "okayed.servers")
    headers = await server.opened()
    waiting = asyncio.ensure_future(server.send("POST", calling("wait", "mine"), headers))
    behind = next(iter(server.sessions.values())).connection
    while not behind.pending:
        await asyncio.sleep(0)
    await server.send("POST", frame("notifications/cancelled", {"requestId": "nobody's"}, None), headers)
    await server.send("POST", frame("notifications/cancelled", {"requestId": "mine"}, None), headers)
    await frames(await waiting)
    assert "told notifications/cancelled True" in caplog.text


# The revision without sessions.


async def test_one_child_serves_all_2026_clients(shared):
    replies = await asyncio.gather(
        *(shared.send("POST", modern("echo", 1, _meta={**META, "n": n}), VERSION) for n in range(4))
    )
    assert [json.loads(text((await frames(reply))[0]))["_meta"]["n"] for reply in replies] == [0, 1, 2, 3]
    assert shared.sessions == {}


async def test_2026_clients_of_a_handshake_server_must_send_initialize(server):
    for _ in range(2):
        with pytest.raises(UseInitializeError):
            await server.send("POST", modern("echo"), VERSION)
    assert await server.opened()


async def test_a_guessed_revision_is_probed_again(clock, tmp_path):
    ready = tmp_path / "ready"
    late = f"[ -e {ready} ] && exec {sys.executable} {CHILD} --modern; exit 1"
    upstream = Server(ServerCommand(name="late", argv=["/bin/sh", "-c", late]), clock)
    for seconds in (0.0, stdio.PROBE_INTERVAL - 1):
        clock.now = seconds
        with pytest.raises(UseInitializeError):
            await upstream.send("POST", modern("echo"), VERSION)
        ready.touch()
    clock.now = stdio.PROBE_INTERVAL
    assert (await frames(await upstream.send("POST", modern("echo"), VERSION)))[0]["id"] == 1
    await upstream.close()


async def test_exiting_before_the_probe_is_treated_as_exiting_at_it(clock):
    class Gone(ServerCommand):
        async def start(self):
            behind = await ServerCommand.start(self)
            await behind.ended.wait()
            return behind

    upstream = Server(Gone(name="gone", argv=["/bin/true"]), clock)
    with pytest.raises(UseInitializeError):
        await upstream.send("POST", modern("echo"), VERSION)
    await upstream.close()


async def test_the_shared_child_is_restarted_after_it_ended(shared):
    await frames(await shared.send("POST", modern("echo"), VERSION))
    with pytest.raises(ConnectionLostError):
        await shared.send("POST", modern("crash"), VERSION)
    assert (await frames(await shared.send("POST", modern("echo", 3), VERSION)))[0]["id"] == 3


async def test_an_error_has_the_http_status_of_its_code(shared):
    reply = await shared.send("POST", frame("no/such", {"_meta": META}), VERSION)
    assert reply.status == 404
    assert (await frames(reply))[0]["error"]["code"] == -32601


async def test_a_2026_client_that_leaves_cancels_its_request(shared, caplog):
    caplog.set_level(logging.INFO, "okayed.servers")
    leaving = asyncio.ensure_future(shared.send("POST", modern("wait"), VERSION))
    while shared.shared is None or not shared.shared.pending:
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    async with asyncio.timeout(HANG):
        while "told notifications/cancelled True" not in caplog.text:
            await asyncio.sleep(0)


async def test_a_2026_client_cannot_cancel_anothers_request_with_the_same_id(shared, caplog):
    caplog.set_level(logging.INFO, "okayed.servers")
    waiting = asyncio.ensure_future(shared.send("POST", modern("wait"), VERSION))
    while shared.shared is None or not shared.shared.pending:
        await asyncio.sleep(0)
    for request_id in (1, True):
        taking_back = frame("notifications/cancelled", {"requestId": request_id, "_meta": META}, None)
        assert (await shared.send("POST", taking_back, VERSION)).status == 202
    # The server reports the frame that it reads next.
    asking = frame("prompts/get", {"name": "x", "requestId": None, "_meta": META}, 2)
    next_one = asyncio.ensure_future(shared.send("POST", asking, VERSION))
    assert text((await frames(await waiting))[0]) == "too late"
    next_one.cancel()
    await asyncio.wait([next_one])
    async with asyncio.timeout(HANG):
        while "told" not in caplog.text:
            await asyncio.sleep(0)
    assert "told prompts/get False" in caplog.text


async def test_a_message_without_a_request_id_goes_to_neither_of_two_requests(shared):
    asking = [asyncio.ensure_future(shared.send("POST", modern("wait", n), VERSION)) for n in range(2)]
    while shared.shared is None or len(shared.shared.pending) < 2:
        await asyncio.sleep(0)
    shared.shared._handle_frame(b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}')
    assert len(shared.shared.backlog) == 1
    assert not any(task.done() for task in asking)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)


async def test_a_subscription_has_the_clients_own_id(shared):
    reply = await shared.send("POST", frame("subscriptions/listen", {"_meta": META}, "sub"), VERSION)
    first, last = await frames(reply)
    assert first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "sub"
    assert last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "sub"
    assert last["id"] == "sub"


async def test_a_quiet_request_becomes_a_stream_with_signs_of_life(server):
    was, sessions.QUIET = sessions.QUIET, 0.05
    try:
        headers = await server.opened()
        reply = await server.send("POST", calling("wait"), headers)
        assert reply.streams
        assert (await anext(reply.chunks)).startswith(b": waiting")
        assert (await anext(reply.chunks)).startswith(b": waiting")
        await server.send("POST", frame("notifications/cancelled", {"requestId": 1}, None), headers)
        assert "too late" in str(await frames(reply))
        listening = await server.send("GET", b"", headers)
        assert (await anext(listening.chunks)).startswith(b": waiting")
        listening.close()
    finally:
        sessions.QUIET = was


#: A server of three lines: it answers the first request, which has our id 1, and reads on until its stdin ends.
TINY = """read line; echo '{"jsonrpc":"2.0","id":1,"result":{}}'; cat >/dev/null"""


async def test_nothing_is_left_after_two_hundred_sessions(clock):
    upstream = StdioUpstream(ServerCommand(name="tiny", argv=["/bin/sh", "-c", TINY]), clock)
    for _ in range(200):
        reply = await upstream.send("POST", frame("initialize", {}), {})
        await upstream.send("DELETE", b"", {"Mcp-Session-Id": reply.header("mcp-session-id")})
    await upstream.close()
    assert "Z" not in child_states(os.getpid())
    assert not any("cat >/dev/null" in command for command in running_commands())


def child_states(parent: int) -> list[str]:
    """Return the states of this process's children; Z for a zombie."""
    states = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
            states += [state] * (int(ppid) == parent)
    return states


def running_commands() -> list[str]:
    commands = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(line.read_text().replace("\0", " "))
    return commands


#: The same, but that neither the end of its stdin nor SIGTERM ends it.
STUBBORN = """trap '' TERM; read line; echo '{"jsonrpc":"2.0","id":1,"result":{}}'; exec sleep 20"""


@pytest.mark.parametrize("verb", ["POST", "DELETE"])
async def test_a_client_that_leaves_while_children_are_stopped_leaves_none_behind(clock, verb, monkeypatch):
    monkeypatch.setattr(child, "STOP_TIMEOUT", 0.05)
    upstream = Server(ServerCommand(name="stubborn", argv=["/bin/sh", "-c", STUBBORN]), clock)
    replies = [await upstream.send("POST", frame("initialize", {}), {}) for _ in range(3)]
    processes = [session.connection.process for session in upstream.sessions.values()]
    clock.now += (sessions.IDLE + 1) * (verb == "POST")
    headers = {"Mcp-Session-Id": replies[0].header("mcp-session-id")}
    leaving = asyncio.ensure_future(upstream.send(verb, frame("ping"), headers))
    while len(upstream.sessions) == 3:
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    await upstream.close()
    assert [process.returncode is None for process in processes] == [False] * 3


async def test_a_child_that_ignores_sigterm_is_killed(clock):
    stubborn = 'import signal,sys,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsys.stdin.readline()\nsys.stdout.write(\'{"jsonrpc":"2.0","id":1,"result":{}}\\n\')\nsys.stdout.flush()\ntime.sleep(60)'
    was, child.STOP_TIMEOUT = child.STOP_TIMEOUT, 0.1
    try:
        upstream = Server(ServerCommand(name="stubborn", argv=[sys.executable, "-c", stubborn]), clock)
        await upstream.send("POST", frame("initialize", {"protocolVersion": "2025-11-25"}), {})
        process = next(iter(upstream.sessions.values())).connection.process
        await upstream.close()
        assert process.returncode == -9
    finally:
        child.STOP_TIMEOUT = was


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nothing_is_written_to_a_closed_pipe(loop):
    async def ask():
        child = await Child.start("brief", ["cat"], {}, None)
        before = child.send_request(frame("tools/list"))
        stopping = asyncio.ensure_future(child.stop())
        await asyncio.sleep(0)
        try:
            assert not child.ended.is_set()
            with pytest.raises(NotSentError, match="The server brief has ended"):
                child.send_request(frame("tools/list"))
            child.cancel(before)
            assert child.pending == {}
        finally:
            await stopping

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(ask())


def test_children_are_probed_with_the_gateways_discover_request():
    assert json.loads(protocol.DISCOVER)["method"] == "server/discover"
    assert issubclass(ResponseTooLargeError, ConnectionLostError)


async def test_a_closed_upstream_starts_no_process(clock, monkeypatch):
    started = []
    start = Child.start

    async def counted(*args):
        child = await start(*args)
        started.append(child)
        return child

    monkeypatch.setattr(Child, "start", counted)
    upstream = StdioUpstream(ServerCommand(name="t", argv=[sys.executable, CHILD, "--modern"]), clock)
    opening = asyncio.gather(
        upstream.send("POST", frame("initialize", {}), {}),
        upstream.send("POST", modern("echo"), VERSION),
        return_exceptions=True,
    )
    await asyncio.sleep(0)
    await upstream.close()
    assert [type(error) for error in await opening] == [NotSentError] * 2
    for body, headers in ((frame("initialize", {}), {}), (modern("echo"), VERSION)):
        with pytest.raises(NotSentError, match="nothing was sent"):
            await upstream.send("POST", body, headers)
    await upstream.close()
    assert [child.process.returncode is None for child in started] == [False, False]
