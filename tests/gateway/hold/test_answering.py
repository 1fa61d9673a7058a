"""Responses to clients that wait for held calls: rounds, resumable streams, and requests for input."""

import asyncio
import json

import pytest
from aiohttp import web

from approvals.model import Decision, State
from gateways import META, MODERN, call, last_frame, running, text
from hang import HANG
from recording_server import RecordingServer, error, result

SHORT = "approvals: {hold_for: 1s, expire_after: 1h, approved_for: 1h}"
CALL = {"name": "create_note", "arguments": {"a": 1}}


async def one_round(gateway, params, **more):
    """Send the call, and let the client's wait end."""
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.ask("tools/call", params, **more))
        await gateway.pass_time(1.5)
        return await agent


async def test_a_quick_decision_is_one_json_frame_with_the_servers_status():
    async def missing(_, frame):
        return error(frame, -32021, "This tool needs sampling.", status=400)

    async with running(recorder=RecordingServer(on_call=missing)) as gateway, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.ask("tools/call", CALL))
        [held] = await gateway.held()
        await gateway.review(held)
        answer = await agent
        assert (answer.status, answer.media_type, answer.error["code"]) == (400, "application/json", -32021)


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/event-stream"])
async def test_a_decision_made_before_the_client_listens_is_answered_at_once(accept):
    async with running() as gateway, asyncio.timeout(HANG):
        service = gateway.gateway.service
        hold, alice = service.hold, service.directory.by_name("alice")

        async def hold_and_deny(new):
            held = await hold(new)
            await service.review(held.id, alice, Decision.DENY, via="cli", digest=held.digest, reason="no")
            while service.store._feed._queues and any(
                queue._signals for queue in service.store._feed._queues
            ):
                await asyncio.sleep(0)
            return held

        service.hold = hold_and_deny
        answer = await gateway.ask("tools/call", CALL, headers={"Accept": accept})
        assert "Denied by alice: no" in text(answer.frames[-1])


async def test_a_2026_client_returns_sealed_state_until_the_call_is_decided():
    async with running(more=SHORT) as gateway:
        first = (await one_round(gateway, CALL)).result
        assert (first["resultType"], first["requestState"].startswith("okayed.")) == (
            "input_required",
            True,
        )
        assert "inputRequests" not in first
        again = {**CALL, "requestState": first["requestState"]}
        second = (await one_round(gateway, again, id=2)).result
        assert second["requestState"] != first["requestState"]
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(
                gateway.ask("tools/call", {**CALL, "requestState": second["requestState"]}, id=3)
            )
            [held] = await gateway.held()
            await gateway.review(held)
            assert (await agent).result["content"][0]["text"] == "ran create_note"
        assert [params.keys() for params in gateway.ran()] == [{"name", "arguments", "_meta"}]


async def test_after_the_last_round_the_client_gets_waiting():
    async with running(more=SHORT) as gateway:
        params, answers = dict(CALL), []
        for number in range(10):
            answers.append((await one_round(gateway, params, id=number)).result)
            params = {**CALL, "requestState": answers[-1].get("requestState")}
        assert [answer["resultType"] for answer in answers] == ["input_required"] * 9 + ["complete"]
        assert answers[-1]["content"][0]["text"].startswith("WAITING: a person has to approve this call")
        [held] = await gateway.held()
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.ask("tools/call", CALL))
            await gateway.review(held)
            assert (await agent).result["content"][0]["text"] == "ran create_note"
        assert len(gateway.ran()) == 1


@pytest.mark.parametrize("spoil", [lambda s: s + "x", lambda s: s[:-2] + "AA", lambda _: "okayed.v1.x"])
async def test_a_modified_state_is_refused(spoil):
    async with running(more=SHORT) as gateway:
        state = (await one_round(gateway, CALL)).result["requestState"]
        answer = await gateway.ask("tools/call", {**CALL, "requestState": spoil(state)})
        assert (answer.status, answer.error["code"], answer.error["message"]) == (
            400, -32602, "Invalid or expired requestState",
        )  # fmt: skip


AGENTS = """
agents:
  - {name: one, token_sha256: 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed}
  - {name: two, token_sha256: 3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3}
"""


async def test_another_agents_state_or_stream_is_unknown():
    async with running(more=f"{SHORT}\n{AGENTS}") as gateway:
        gateway.http.headers["Authorization"] = "Bearer one"
        state = (await one_round(gateway, CALL)).result["requestState"]
        [held] = await gateway.held()
        gateway.http.headers["Authorization"] = "Bearer two"
        assert (await gateway.ask("tools/call", {**CALL, "requestState": state})).error["code"] == -32602
        seen = {"Accept": "text/event-stream", "Last-Event-ID": f"{held.id}.MQ=="}
        async with gateway.http.get(gateway.url, headers=seen) as answer:
            assert answer.status == 404


async def test_state_with_other_arguments_makes_a_new_call():
    async with running(more=SHORT) as gateway:
        state = (await one_round(gateway, CALL)).result["requestState"]
        other = {"name": "create_note", "arguments": {"a": 2}, "requestState": state}
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.ask("tools/call", other))
            old, new = await gateway.held(2)
            await gateway.review(new)
            await agent
        assert [params["arguments"] for params in gateway.ran()] == [{"a": 2}]
        assert "requestState" not in gateway.ran()[0]
        assert (await gateway.gateway.service.get(old.id)).state is State.PENDING


async def test_a_requester_gets_the_approval_link_only_if_the_config_says_so():
    shows = (
        "approvals: {hold_for: 1s, notify_requester: true}\ninbox: {url: 'https://approvals.example.com/'}"
    )
    links = {"elicitation": {"form": {}, "url": {}}}
    async with running(more=shows) as gateway:
        asked = (await one_round(gateway, CALL, declares=links)).result["inputRequests"]["okayed"]
        [held] = await gateway.held()
        assert asked["params"]["url"] == f"https://approvals.example.com/calls/{held.id}"
        assert (asked["method"], asked["params"]["mode"]) == ("elicitation/create", "url")
        answer = (await one_round(gateway, {**CALL, "arguments": {}}, declares={"elicitation": {}})).result
        assert "inputRequests" not in answer


async def test_opening_the_link_approves_nothing_and_is_not_forwarded():
    shows = (
        "approvals: {hold_for: 1s, notify_requester: true}\ninbox: {url: 'https://approvals.example.com/'}"
    )
    links = {"elicitation": {"url": {}}}
    async with running(more=shows) as gateway:
        state = (await one_round(gateway, CALL, declares=links)).result["requestState"]
        opened = {**CALL, "requestState": state, "inputResponses": {"okayed": {"action": "accept"}}}
        await one_round(gateway, opened, declares=links)
        assert gateway.ran() == []
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.ask("tools/call", opened, declares=links))
            [held] = await gateway.held()
            await gateway.review(held)
            await agent
        assert [set(params) for params in gateway.ran()] == [{"name", "arguments", "_meta"}]


async def test_a_2025_requester_gets_the_link_on_its_stream():
    shows = "approvals: {notify_requester: true}\ninbox: {url: 'https://approvals.example.com/'}"
    async with running(more=shows) as gateway:
        session = await opened(gateway, capabilities={"elicitation": {"url": {}}})
        answer = await gateway.post(call("create_note"), headers=session)
        await first_event(answer)
        asked = json.loads((await first_event(answer)).split(b"data: ")[1])
        [held] = await gateway.held()
        assert asked["params"]["url"] == f"https://approvals.example.com/calls/{held.id}"
        assert (asked["params"]["mode"], asked["params"]["elicitationId"]) == ("url", held.id)
        seen = len(gateway.recorder.received)
        opening = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}}
        async with await gateway.post(opening, session) as taken:
            assert taken.status == 202
        assert (len(gateway.recorder.received), gateway.ran()) == (seen, [])
        await gateway.review(held)
        rest = await answer.read()
        assert b"notifications/elicitation/complete" in rest
        assert text(last_frame(rest)) == "ran create_note"


# Servers that request input.


def asks_for_a_name(state="theirs"):
    async def answer(_, frame):
        given = frame["params"].get("inputResponses")
        if given:
            return result(
                frame, {"resultType": "complete", "content": [{"type": "text", "text": json.dumps(given)}]}
            )
        request = {
            "method": "elicitation/create",
            "params": {"message": "Who?", "requestedSchema": {"type": "object"}},
        }
        wanted = {"resultType": "input_required", "inputRequests": {"who": request}}
        return result(frame, wanted | ({"requestState": state} if state else {}))

    return answer


async def ask_and_approve(gateway, params=CALL, **more):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.ask("tools/call", params, **more))
        [held] = await gateway.held()
        await gateway.review(held)
        return (await agent).result


@pytest.mark.parametrize("state", ["theirs", None])
async def test_a_servers_request_for_input_is_answered_under_the_same_approval(state):
    async with running(recorder=RecordingServer(on_call=asks_for_a_name(state))) as gateway:
        asked = await ask_and_approve(gateway)
        assert asked["inputRequests"]["who"]["params"]["message"] == "Who?"
        assert asked["requestState"].startswith("okayed.")
        answers = {"who": {"action": "accept", "content": {"name": "Ana"}}}
        follow_up = {**CALL, "inputResponses": answers, "requestState": asked["requestState"]}
        done = await gateway.ask("tools/call", follow_up, id=2)
        assert json.loads(done.result["content"][0]["text"]) == answers
        assert [params.get("requestState") for params in gateway.ran()] == [None, state]
        # The same answers sent again are the same run; other answers would be a second run under one approval.
        again = await gateway.ask("tools/call", follow_up, id=3)
        assert again.result == done.result
        other = {**follow_up, "inputResponses": {"who": {"action": "decline"}}}
        refused = await gateway.ask("tools/call", other, id=4)
        assert "already continued with other answers" in refused.error["message"]
        assert len(gateway.ran()) == 2
        assert (await gateway.gateway.store.select(["pending"])).items == []


async def test_an_approval_covers_its_servers_questions_only_for_a_limited_time():
    async with running(
        more="approvals: {approved_for: 10m}", recorder=RecordingServer(on_call=asks_for_a_name())
    ) as gateway:
        asked = await ask_and_approve(gateway)
        gateway.clock.now += 601
        answers = {"who": {"action": "accept", "content": {}}}
        late = await gateway.ask(
            "tools/call", {**CALL, "inputResponses": answers, "requestState": asked["requestState"]}
        )
        assert "can no longer be continued" in late.error["message"]
        assert len(gateway.ran()) == 1


async def test_the_state_of_an_allowed_call_is_relayed_unchanged():
    async with running("default: allow", recorder=RecordingServer(on_call=asks_for_a_name())) as gateway:
        asked = (await gateway.ask("tools/call", CALL)).result
        assert asked["requestState"] == "theirs"


async def test_a_servers_own_state_makes_a_new_call():
    async with running(more=SHORT) as gateway:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(gateway.ask("tools/call", CALL))
            second = tasks.create_task(gateway.ask("tools/call", {**CALL, "requestState": "theirs"}))
            for held in await gateway.held(2):
                await gateway.review(held, Decision.DENY, "no")
            await first
            await second


# Streams that a client of 2025-11-25 resumes.


async def opened(gateway, revision="2025-11-25", capabilities=None):
    gateway.recorder.session = "s1"
    params = {
        "protocolVersion": revision,
        "capabilities": capabilities or {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    async with await gateway.post(body) as answer:
        await answer.read()
    return {"Mcp-Session-Id": "s1", "MCP-Protocol-Version": revision}


async def first_event(answer):
    return await answer.content.readuntil(b"\n\n")


async def test_a_client_whose_stream_broke_resumes_it():
    async with running() as gateway:
        session = await opened(gateway)
        answer = await gateway.post(call("create_note", id="x1", _meta={"progressToken": 1}), headers=session)
        priming = await first_event(answer)
        [held] = await gateway.held()
        event_id = priming.split(b"\n")[0].removeprefix(b"id: ").decode()
        assert b"retry: 5000\ndata: " in priming
        answer.close()
        async with asyncio.TaskGroup() as tasks:
            seen = {**session, "Last-Event-ID": event_id, "Accept": "text/event-stream"}
            again = await gateway.http.get(gateway.url, headers=seen)
            assert again.status == 200
            tasks.create_task(gateway.review(held))
            frame = last_frame(await again.read())
        assert (frame["id"], text(frame)) == ("x1", "ran create_note")
        assert len(gateway.ran()) == 1
        [sent] = [one for one in gateway.recorder.received if b'"tools/call"' in one.body]
        assert "last-event-id" not in sent.headers


async def test_a_client_of_an_older_revision_gets_no_empty_event():
    async with running() as gateway:
        session = await opened(gateway, "2025-06-18")
        answer = await gateway.post(call("create_note", _meta={"progressToken": 1}), headers=session)
        assert (await first_event(answer)).startswith(b"event: message\n")
        answer.close()


@pytest.mark.parametrize("event_id", ["theirs", "hold_x.!!", "hold_x.e30=", "hold_x.é"])
async def test_a_servers_event_id_is_relayed_to_the_server(event_id):
    async with running() as gateway:
        session = await opened(gateway)
        seen = {**session, "Last-Event-ID": event_id, "Accept": "text/event-stream"}
        async with gateway.http.get(gateway.url, headers=seen) as answer:
            assert answer.status == 405
        assert gateway.recorder.received[-1].headers["last-event-id"] == event_id


@pytest.mark.parametrize("call_id", ["hold_01x", "hp_01x"])
async def test_a_stream_of_an_unknown_call_is_not_found(call_id):
    async with running() as gateway:
        seen = {"Last-Event-ID": f"{call_id}.MQ==", "Accept": "text/event-stream"}
        async with gateway.http.get(gateway.url, headers=seen) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, -32001)


def polls(times=1):
    """A server that hangs up before it answers, and sends the rest when polled."""
    left = [times]

    async def stream(request, *lines):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for line in lines:
            await response.write(line.encode())
        await response.write_eof()
        return response

    async def on_call(request, frame):
        return await stream(request, "id: e1\nretry: 1\ndata: \n\n")

    async def on_get(request, frame):
        if left[0] > 1:
            left[0] -= 1
            return await stream(request, f"id: e{left[0]}\ndata: \n\n")
        answer = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "at last"}]}}
        return await stream(request, f"id: z\ndata: {json.dumps(answer)}\n\n")

    return RecordingServer(on_call=on_call, on_get=on_get)


@pytest.mark.parametrize("times", [1, 6])
async def test_a_server_that_hangs_up_before_its_answer_is_polled(times):
    async with running(recorder=polls(times)) as gateway, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        await gateway.review(held)
        assert text(await agent) == "at last"
        assert len(gateway.ran()) == 1
        asked = [one.headers["last-event-id"] for one in gateway.recorder.received if one.verb == "GET"]
        assert asked[0] == "e1"
        assert len(asked) == times


async def test_when_the_server_hangs_up_a_resumable_clients_stream_ends_too():
    async with running(recorder=polls()) as gateway:
        session = await opened(gateway)
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.post(call("create_note"), headers=session))
            [held] = await gateway.held()
            await gateway.review(held)
            body = await (await agent).read()
        assert b"data: \n\n" in body
        assert b"result" not in body
        seen = {
            **session,
            "Last-Event-ID": body.split(b"\n")[0].removeprefix(b"id: ").decode(),
            "Accept": "text/event-stream",
        }
        async with gateway.http.get(gateway.url, headers=seen) as again:
            assert text(last_frame(await again.read())) == "at last"


async def test_a_server_that_never_sends_the_rest_leaves_the_call_in_doubt():
    recorder = polls()
    recorder.on_get = None
    async with running(recorder=recorder) as gateway, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        await gateway.review(held)
        assert "It MAY have run" in text(await agent)
        assert len(gateway.ran()) == 1


# Sessions that a server has lost meanwhile.


def forgetful(sessions):
    """A server that knows only the newest session."""
    recorder = RecordingServer(modern=False)

    async def on_initialize(_, frame):
        sessions.append(f"s{len(sessions) + 1}")
        recorder.session = sessions[-1]

    async def in_session(request, frame):
        if request.headers.get("Mcp-Session-Id") != sessions[-1]:
            return error({"id": None}, -32001, "x", status=404)
        return result(frame, {"content": [{"type": "text", "text": f"in {sessions[-1]}"}]})

    recorder.on_initialize, recorder.on_call, recorder.on_ping = on_initialize, in_session, in_session
    return recorder


async def ended_session(recorder, session):
    """Wait until the server was asked to end the session, which happens after the answer."""
    async with asyncio.timeout(HANG):
        while not any(
            one.verb == "DELETE" and one.headers["mcp-session-id"] == session for one in recorder.received
        ):
            await asyncio.sleep(0)


async def test_a_late_approval_reopens_the_session_with_the_clients_initialize():
    sessions = []
    async with running(recorder=forgetful(sessions)) as gateway:
        session = await opened(gateway, "2025-06-18")
        session["Mcp-Session-Id"] = sessions[-1]
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note", headers=session))
            [held] = await gateway.held()
            sessions.append("another")  # for example, the server was restarted
            await gateway.review(held)
            answer = text(await agent)
        assert answer == f"in {sessions[-1]}"
        initialized = [
            one.frame for one in gateway.recorder.received if one.frame.get("method") == "initialize"
        ]
        assert initialized[-1]["params"]["clientInfo"]["name"] == "test"
        await ended_session(gateway.recorder, sessions[-1])
        assert "session.reopened" in await gateway.kinds()


async def test_a_server_that_opens_no_new_session_is_sent_nothing():
    recorder = forgetful([])
    async with running(recorder=recorder) as gateway:
        session = await opened(gateway, "2025-06-18")
        session["Mcp-Session-Id"] = recorder.session
        refuse = recorder.on_initialize

        async def refusing(request, frame):
            await refuse(request, frame)
            return error(frame, -32603, "no more")

        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note", headers=session))
            [held] = await gateway.held()
            recorder.on_initialize = refusing
            recorder.on_ping = lambda *_: asyncio.sleep(0, web.Response(status=404))
            await gateway.review(held)
            assert "would not open another. NOT EXECUTED" in text(await agent)
        assert (await gateway.gateway.service.get(held.id)).state is State.NOT_SENT


def test_the_meta_in_these_tests_is_that_of_2026_07_28():
    assert META["io.modelcontextprotocol/protocolVersion"] == MODERN


async def test_another_servers_state_or_stream_is_unknown():
    async with running(more=SHORT, second_server="other") as gateway:
        state = (await one_round(gateway, CALL)).result["requestState"]
        [held] = await gateway.held()
        gateway.url = gateway.url.replace("/notes", "/other")
        assert (await gateway.ask("tools/call", {**CALL, "requestState": state})).error["code"] == -32602
        seen = {"Accept": "text/event-stream", "Last-Event-ID": f"{held.id}.MQ=="}
        async with gateway.http.get(gateway.url, headers=seen) as answer:
            assert answer.status == 404


async def test_state_with_another_tool_makes_a_new_call():
    async with running("default: require_approval", more=SHORT) as gateway:
        state = (await one_round(gateway, CALL)).result["requestState"]
        other = {**CALL, "name": "delete_note", "requestState": state}
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.ask("tools/call", other))
            old, new = await gateway.held(2)
            await gateway.review(new)
            await agent
        assert [params["name"] for params in gateway.ran()] == ["delete_note"]
        assert (await gateway.gateway.service.get(old.id)).state is State.PENDING


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
async def test_a_call_is_not_sent_again_whatever_status_the_server_returns(status):
    async def refuse(request, frame):
        return web.Response(status=status)

    recorder = RecordingServer(on_call=refuse, modern=False)
    async with running(recorder=recorder) as gateway, asyncio.TaskGroup() as tasks:
        session = await opened(gateway, "2025-06-18")
        agent = tasks.create_task(gateway.call("create_note", headers=session))
        [held] = await gateway.held()
        await gateway.review(held)
        await agent
        assert len(gateway.ran()) == 1
        assert "session.reopened" not in await gateway.kinds()
