"""Sessions of HTTP servers: pinged before a call is claimed, and never sent a call twice."""

import asyncio
import json

import pytest
from aiohttp import web

from approvals.model import State
from gateway.fronts.client import GatewayClient
from gateway.hold import session_probe
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http import HttpUpstream
from gateway.wire import frames
from gateways import call, running, text
from hang import HANG
from recording_server import RecordingServer, error, result

TASKS = "approvals: {tasks: all}"
OPENING = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
INITIALIZE = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": OPENING}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


async def done(_, frame):
    answer = result(frame, {"content": [{"type": "text", "text": "done"}]})
    answer.set_status(404)
    return answer


async def failed(_, frame):
    return error(frame, -32050, "no such note", status=404)


async def nothing(_, frame):
    return web.Response(status=404)


async def without_id(_, frame):
    return error({"id": None}, -32001, "Session not found", status=404)


ANSWERS = [(done, "done"), (failed, "no such note"), (nothing, "MAY have run"), (without_id, "MAY have run")]


async def open_session(gateway):
    """Open a session over HTTP; returns the headers that name it."""
    await (await gateway.post(INITIALIZE)).read()
    headers = {"Mcp-Session-Id": gateway.recorder.session, "Mcp-Protocol-Version": "2025-11-25"}
    await gateway.post(INITIALIZED, headers)
    return headers


async def reviewed(gateway):
    [held] = await gateway.held()
    return await gateway.review(held)


async def over_http(gateway, agents):
    headers = await open_session(gateway)
    agent = agents.create_task(gateway.call("create_note", headers=headers))
    await reviewed(gateway)
    return str(await agent)


async def as_a_task(gateway, _):
    headers = await open_session(gateway)
    asked = call("create_note", task={})
    task_id = (await (await gateway.post(asked, headers)).json())["result"]["task"]["taskId"]
    await reviewed(gateway)
    wanted = {"jsonrpc": "2.0", "id": 2, "method": "tasks/result", "params": {"taskId": task_id}}
    async with await gateway.post(wanted, headers) as answer:
        return (await answer.read()).decode()


async def send_frame(client, frame):
    line = json.dumps(frame).encode()
    return b"".join([data async for data in client.send(frames.decode(line), line)]).decode()


async def join_gateway(gateway):
    """Return the client of an `okayed stdio` that joined this gateway over HTTP."""
    client = GatewayClient(HttpUpstream(gateway.url, FixedCredentials({}), gateway.pool).send, {})
    for frame in (INITIALIZE, INITIALIZED):
        await send_frame(client, frame)
    return client


async def over_stdio(gateway, agents):
    agent = agents.create_task(send_frame(await join_gateway(gateway), call("create_note")))
    await reviewed(gateway)
    return await agent


async def allowed_over_stdio(gateway, _):
    return await send_frame(await join_gateway(gateway), call("get_note"))


@pytest.mark.parametrize("way", [over_http, as_a_task, over_stdio, allowed_over_stdio])
@pytest.mark.parametrize(("on_call", "wanted"), ANSWERS)
async def test_a_call_that_a_server_ran_and_answered_with_404_is_not_sent_again(way, on_call, wanted):
    recorder = RecordingServer(on_call=on_call, session="s1", modern=False)
    async with running(more=TASKS, recorder=recorder) as gateway, asyncio.TaskGroup() as agents:
        answer = await way(gateway, agents)
        assert len(gateway.ran()) == 1
        assert wanted in answer


# The ping before the claim.


def pings(recorder):
    return [one for one in recorder.received if one.frame.get("method") == "ping"]


async def approve_after(gateway, agents, seconds, headers):
    """Hold a call, let time pass, and approve it; returns the text that its client gets, and the call."""
    agent = agents.create_task(gateway.call("create_note", headers=headers))
    [held] = await gateway.held()
    gateway.clock.now += seconds
    await gateway.review(held)
    answer = text(await agent)
    return answer, await gateway.gateway.service.get(held.id)


def server(on_ping=None):
    return RecordingServer(session="s1", modern=False, on_ping=on_ping)


@pytest.mark.parametrize(("seconds", "asked"), [(4.9, 0), (5.0, 1)])
async def test_a_session_without_a_recent_answer_is_pinged_under_our_own_id(seconds, asked):
    async with running(recorder=server()) as gateway, asyncio.TaskGroup() as agents:
        headers = await open_session(gateway)
        answer, _ = await approve_after(gateway, agents, seconds, headers)
        found = pings(gateway.recorder)
        assert (answer, len(found)) == ("ran create_note", asked)
        assert all(one.frame["id"].startswith("okayed-") for one in found)
        assert all(one.headers["mcp-session-id"] == "s1" for one in found)


async def method_not_found(_, frame):
    return error(frame, -32601, "Method not found", status=404)


async def streamed(request, frame):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(
        b"data: " + json.dumps({"jsonrpc": "2.0", "id": frame["id"], "result": {}}).encode() + b"\n\n"
    )
    return response


@pytest.mark.parametrize("on_ping", [method_not_found, streamed])
async def test_method_not_found_answers_the_ping_too(on_ping):
    async with running(recorder=server(on_ping)) as gateway, asyncio.TaskGroup() as agents:
        answer, _ = await approve_after(gateway, agents, 6, await open_session(gateway))
        assert answer == "ran create_note"
        assert "session.reopened" not in await gateway.kinds()


def with_status(status):
    async def refuse(_, frame):
        return web.Response(status=status)

    return refuse


async def session_error(_, frame):
    return error(frame, -32000, "no session")


async def cut(request, _):
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    "on_ping", [*map(with_status, [202, 400, 401, 404, 500]), session_error, without_id, cut]
)
async def test_a_lost_session_is_reopened_before_the_call_is_claimed(on_ping):
    async with running(recorder=server(on_ping)) as gateway, asyncio.TaskGroup() as agents:
        headers = await open_session(gateway)
        gateway.recorder.session = "s2"
        answer, _ = await approve_after(gateway, agents, 6, headers)
        assert answer == "ran create_note"
        [sent] = gateway.recorder.calls
        assert sent.headers["mcp-session-id"] == "s2"
        kinds = await gateway.kinds()
        assert kinds.index("session.reopened") < kinds.index("hold.forwarding")


async def test_a_session_opened_for_one_call_is_closed_after_it():
    ended = asyncio.Event()

    async def end(request, _):
        assert request.headers["mcp-session-id"] == "s2"
        if gateway.ran():  # the session that listed the tools was closed before it
            ended.set()
        return web.Response()

    async with running(recorder=server(nothing)) as gateway, asyncio.TaskGroup() as agents:
        headers = await open_session(gateway)
        gateway.recorder.session, gateway.recorder.on_delete = "s2", end
        answer, _ = await approve_after(gateway, agents, 6, headers)
        assert answer == "ran create_note"
        async with asyncio.timeout(HANG):
            await ended.wait()


async def test_neither_of_two_calls_is_sent_in_a_lost_session():
    async def only_in_s2(request, frame):
        if request.headers["mcp-session-id"] != "s2":
            return web.Response(status=404)
        return result(frame, {"content": [{"type": "text", "text": "ran"}]})

    async with running(recorder=server(nothing)) as gateway, asyncio.TaskGroup() as agents:
        headers = await open_session(gateway)
        agent = agents.create_task(gateway.call("create_note", {"n": 1}, headers=headers))
        [first] = await gateway.held()
        other = agents.create_task(gateway.call("create_note", {"n": 2}, id=2, headers=headers))
        _, second = await gateway.held(2)
        gateway.recorder.session, gateway.recorder.on_call = "s2", only_in_s2
        gateway.clock.now += 6
        await gateway.review(first)
        assert text(await agent) == "ran"
        await gateway.review(second)
        assert text(await other) == "ran"


@pytest.mark.parametrize("hangs", ["ping", "initialize"])
async def test_while_a_server_is_silent_the_call_is_not_claimed_and_retried_each_beat(
    hangs, monkeypatch, caplog
):
    monkeypatch.setattr(session_probe, "TIMEOUT", 0.05)
    asked = asyncio.Event()

    async def never(_, frame):
        asked.set()
        await asyncio.Event().wait()

    async with running(recorder=server(never)) as gateway, asyncio.TaskGroup() as agents:
        headers = await open_session(gateway)
        agent = agents.create_task(gateway.call("create_note", headers=headers))
        [held] = await gateway.held()
        if hangs == "initialize":
            gateway.recorder.on_ping, gateway.recorder.on_initialize = nothing, never
        gateway.clock.now += 6
        await gateway.review(held)
        async with asyncio.timeout(HANG):
            await asked.wait()
        await gateway.pass_time(0)  # it waits again
        assert (await gateway.gateway.service.get(held.id)).state is State.APPROVED
        assert f"{held.id} could not be claimed or finished" in caplog.text
        gateway.recorder.on_ping = gateway.recorder.on_initialize = None
        gateway.gateway.service.wakeups.wake(held.id)
        assert text(await agent) == "ran create_note"
        assert len(gateway.ran()) == 1


async def test_without_a_session_there_is_no_ping():
    async with running(recorder=RecordingServer(modern=False)) as gateway, asyncio.TaskGroup() as agents:
        await (await gateway.post(INITIALIZE)).read()
        answer, _ = await approve_after(gateway, agents, 6, {"Mcp-Protocol-Version": "2025-11-25"})
        assert (answer, pings(gateway.recorder)) == ("ran create_note", [])


async def test_a_server_that_became_unreachable_is_sent_nothing():
    async with running(recorder=server()) as gateway, asyncio.TaskGroup() as agents:
        headers = await open_session(gateway)
        agent = agents.create_task(gateway.call("create_note", headers=headers))
        [held] = await gateway.held()
        await gateway.recorder.runner.cleanup()
        gateway.clock.now += 6
        await gateway.review(held)
        assert text(await agent).startswith("The server could not be reached")
        assert (await gateway.gateway.service.get(held.id)).state is State.NOT_SENT


async def test_a_call_with_the_gateways_own_404_is_sent_in_a_new_session():
    async with running(recorder=server()) as gateway:
        client = await join_gateway(gateway)
        gateway.gateway.proxy._sessions.close("notes", {"mcp-session-id": "s1"})
        assert "ran get_note" in await send_frame(client, call("get_note"))
        assert len(gateway.ran()) == 1


async def test_after_a_404_in_doubt_the_next_call_gets_a_new_session():
    async with running(recorder=server()) as gateway:
        client = await join_gateway(gateway)
        gateway.recorder.on_call, gateway.recorder.session = nothing, "s2"
        assert "MAY have run" in await send_frame(client, call("get_note"))
        gateway.recorder.on_call = None
        assert "ran get_note" in await send_frame(client, call("get_note", id=2))
        assert [one.headers["mcp-session-id"] for one in gateway.recorder.calls] == ["s1", "s2"]


async def test_a_server_cannot_say_that_a_call_was_not_sent():
    async def lies(_, frame):
        return web.Response(status=404, headers={"Okayed-Unsent": "1"})

    async with running(recorder=server()) as gateway:
        client = await join_gateway(gateway)
        gateway.recorder.on_call = lies
        assert "MAY have run" in await send_frame(client, call("get_note"))
        assert len(gateway.ran()) == 1
