"""Held calls as tasks, in both dialects: the task object, its states, its result and its owner."""

import asyncio
import json

import pytest
from aiohttp import web

from approvals.errors import StoreError
from approvals.model import CallId, Decision, State
from gateway.hold.tasks.methods import Tasks
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http import HttpUpstream
from gateway.wire import sse
from gateways import META, TASKS, call, last_frame, running
from hang import HANG
from recording_server import RecordingServer, error, result
from replacing import replace

CALL = {"name": "create_note", "arguments": {"a": 1}}
AGENTS = """
agents:
  - {name: one, token_sha256: 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed}
  - {name: two, token_sha256: 3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3}
"""


async def begin(gateway, params=CALL):
    return (await gateway.ask("tools/call", params, declares=TASKS)).result


async def look(gateway, task, **params):
    return (await gateway.ask("tasks/get", {"taskId": task["taskId"], **params}, declares=TASKS)).result


async def wait_until_settled(gateway, call_id):
    """Wait until a call is settled."""
    held = await gateway.gateway.service.get(call_id)
    async with asyncio.timeout(HANG):
        while held.settled_at is None:
            held = await gateway.gateway.service.wait_for_change(held, 5)
    return held


async def test_a_client_with_tasks_gets_a_task_at_once_and_the_call_runs_after_approval():
    async with running() as gateway:
        task = await begin(gateway)
        [held] = await gateway.held()
        assert task == {
            "resultType": "task", "taskId": held.id, "status": "working",
            "statusMessage": "Waiting for a person to approve.", "createdAt": "2027-01-15T08:00:00Z",
            "lastUpdatedAt": "2027-01-15T08:00:00Z", "ttlMs": 5_100_000, "pollIntervalMs": 5000,
        }  # fmt: skip
        assert (await look(gateway, task))["status"] == "working"
        await gateway.review(held)
        await wait_until_settled(gateway, held.id)
        done = await look(gateway, task)
        assert done["status"] == "completed"
        assert done["result"]["content"][0]["text"] == "ran create_note"
        assert len(gateway.ran()) == 1
        # The result was fetched, so a repeat is a new call.
        assert (await begin(gateway))["taskId"] != held.id


async def test_a_denial_is_a_completed_task_with_the_reason():
    async with running() as gateway:
        task = await begin(gateway)
        [held] = await gateway.held()
        await gateway.review(held, Decision.DENY, "not today")
        done = await look(gateway, task)
        assert (done["status"], done["result"]["isError"]) == ("completed", True)
        assert (
            done["result"]["content"][0]["text"]
            == "Denied by alice: not today. NOT EXECUTED. Asking again will not change this."
        )
        assert gateway.ran() == []


async def run_task(gateway):
    """Begin a task, approve it and wait for its server's answer; returns the task and its call."""
    task = await begin(gateway)
    [held] = await gateway.held()
    await gateway.review(held)
    await wait_until_settled(gateway, held.id)
    return task, held


async def test_a_servers_error_is_a_failed_task():
    async def fails(_, frame):
        return error(frame, -32050, "no")

    async with running(recorder=RecordingServer(on_call=fails)) as gateway:
        task, _ = await run_task(gateway)
        failed = await look(gateway, task)
        assert (failed["status"], failed["error"]["code"], "result" in failed) == ("failed", -32050, False)


async def test_a_cancelled_task_never_runs():
    async with running() as gateway:
        task = await begin(gateway)
        named = {"taskId": task["taskId"]}
        assert (await gateway.ask("tasks/cancel", named, declares=TASKS)).result == {"resultType": "complete"}
        assert (await look(gateway, task))["status"] == "cancelled"
        assert (await gateway.ask("tasks/cancel", named, declares=TASKS)).result == {"resultType": "complete"}
        assert gateway.ran() == []


async def test_without_the_extension_tasks_are_refused_and_calls_wait():
    async with running() as gateway:
        task = await begin(gateway)
        answer = await gateway.ask("tasks/get", {"taskId": task["taskId"]})
        assert (answer.status, answer.error["code"]) == (400, -32021)
        assert answer.error["data"] == {
            "requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}
        }


async def test_our_unknown_task_ids_get_an_error_and_other_ids_are_relayed():
    async with running() as gateway:
        answer = await gateway.ask("tasks/get", {"taskId": "hold_nothing"}, declares=TASKS)
        assert (answer.status, answer.error["code"]) == (400, -32602)
        await gateway.ask("tasks/get", {"taskId": "theirs"}, declares=TASKS)
        assert gateway.recorder.received[-1].frame["params"]["taskId"] == "theirs"


async def test_a_task_that_an_earlier_version_made_is_found_by_its_id():
    async with running() as gateway:
        task = await begin(gateway)
        [held] = await gateway.held()
        earlier = replace(held, id=CallId("hp_01kajz5v8q4m7x2n9c6b3d0e1f"), key="earlier")
        await gateway.gateway.store.add(earlier)
        assert (await look(gateway, task | {"taskId": earlier.id}))["status"] == "working"


async def test_a_task_of_another_agent_is_unknown():
    async with running(more=AGENTS) as gateway:
        gateway.http.headers["Authorization"] = "Bearer one"
        named = {"taskId": (await begin(gateway))["taskId"]}
        gateway.http.headers["Authorization"] = "Bearer two"
        for method in ("tasks/get", "tasks/cancel", "tasks/update"):
            assert (await gateway.ask(method, named, declares=TASKS)).error["code"] == -32602
        [held] = await gateway.held()
        assert held.state is State.PENDING


async def test_a_held_call_that_is_not_a_task_cannot_be_polled():
    async with running() as gateway, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(gateway.ask("tools/call", CALL))
        [held] = await gateway.held()
        answer = await gateway.ask("tasks/get", {"taskId": held.id}, declares=TASKS)
        assert answer.error["code"] == -32602
        # A repeat with tasks turns it into a task; a client on a connection still gets the answer.
        task = await begin(gateway)
        assert task["taskId"] == held.id
        await gateway.review(held)
        assert (await waiting).result["content"][0]["text"] == "ran create_note"
        assert (await look(gateway, task))["status"] == "completed"
        assert len(gateway.ran()) == 1


async def test_tasks_are_offered_where_they_are_enabled():
    key = "io.modelcontextprotocol/tasks"
    for more, offered in (("", True), ("approvals: {tasks: off}", False)):
        async with running(more=more) as gateway:
            found = (await gateway.ask("server/discover", {})).result["capabilities"]
            assert (key in found.get("extensions", {})) is offered
            assert found["tools"] == {}
            if not offered:
                async with asyncio.TaskGroup() as tasks:
                    agent = tasks.create_task(gateway.ask("tools/call", CALL, declares=TASKS))
                    [held] = await gateway.held()
                    await gateway.review(held)
                    assert (await agent).result["content"][0]["text"] == "ran create_note"


async def test_a_task_approved_after_a_restart_runs():
    async with running() as gateway:
        task = await begin(gateway)
        proxy = gateway.gateway.proxy
        await proxy.tasks.close()
        [held] = await gateway.held()
        await gateway.review(held)
        approved = await gateway.gateway.store.open_tasks()
        assert approved == [held.id]
        proxy.tasks.attend_all(approved)
        assert len(proxy.tasks.runs) == 0
        assert gateway.ran() == []
        Tasks(gateway.gateway.service, proxy._held_answers, proxy._continuations, proxy._upstream).attend_all(
            approved
        )
        await wait_until_settled(gateway, held.id)
        assert (await look(gateway, task))["result"]["content"][0]["text"] == "ran create_note"
        meta = gateway.ran()[0]["_meta"]
        assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        [sent] = gateway.recorder.calls
        assert (sent.headers["mcp-protocol-version"], sent.headers["mcp-name"]) == (
            "2026-07-28",
            "create_note",
        )


async def test_a_task_runs_at_its_server_as_currently_configured():
    async with RecordingServer() as moved, running() as gateway:
        proxy = gateway.gateway.proxy
        await begin(gateway)
        [held] = await gateway.held()
        upstream = HttpUpstream(moved.url, FixedCredentials({}), gateway.pool)
        proxy.adopt(replace(proxy.settings, upstreams={"notes": upstream}))
        await gateway.review(held)
        await wait_until_settled(gateway, held.id)
        assert (gateway.ran(), len(moved.calls)) == ([], 1)


async def test_a_task_whose_server_was_removed_runs_when_it_is_added_back():
    looked_for = asyncio.Event()

    class Gone(dict):
        def get(self, name):
            looked_for.set()

    async with running() as gateway:
        proxy, setting = gateway.gateway.proxy, gateway.gateway.proxy.settings
        await begin(gateway)
        [held] = await gateway.held()
        proxy.adopt(replace(setting, upstreams=Gone()))
        await gateway.review(held)
        async with asyncio.timeout(HANG):
            await looked_for.wait()
        proxy.adopt(setting)
        gateway.gateway.service.wakeups.wake(held.id)
        assert (await wait_until_settled(gateway, held.id)).state is State.COMPLETED
        assert len(gateway.ran()) == 1


async def test_a_task_whose_attendance_failed_is_attended_again_by_the_next_sweep(caplog):
    async with running() as gateway:
        service, tasks = gateway.gateway.service, gateway.gateway.proxy.tasks
        await begin(gateway)
        [held] = await gateway.held()

        class Broken(type(service.store)):
            async def version(self, call_id):
                raise StoreError("The disk cannot be read.")

        works = type(service.store)
        service.store.__class__ = Broken
        service.wakeups.wake(held.id)
        async with asyncio.timeout(HANG):
            while len(tasks.runs):
                await asyncio.sleep(0)
        assert caplog.messages == [f"task {held.id} is no longer attended; the next sweep attends it again"]
        service.store.__class__ = works
        await gateway.review(held)
        tasks.attend_all(await service.store.open_tasks())
        assert (await wait_until_settled(gateway, held.id)).state is State.COMPLETED


# Servers that request input.


def form(message):
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": {}}}


async def asks_twice(_, frame):
    given = frame["params"].get("inputResponses")
    if given:
        return result(
            frame, {"resultType": "complete", "content": [{"type": "text", "text": json.dumps(given)}]}
        )
    wanted = {"who": form("Who?"), "why": form("Why?")}
    return result(frame, {"resultType": "input_required", "inputRequests": wanted, "requestState": "theirs"})


async def test_a_task_passes_on_its_servers_questions_until_all_are_answered():
    async with running(recorder=RecordingServer(on_call=asks_twice)) as gateway:
        task, held = await run_task(gateway)
        asking = await look(gateway, task)
        assert (asking["status"], set(asking["inputRequests"])) == ("input_required", {"who", "why"})

        async def update(**answers):
            params = {"taskId": task["taskId"], "inputResponses": answers}
            return (await gateway.ask("tasks/update", params, declares=TASKS)).result

        ana, work = ({"action": "accept", "content": {"x": word}} for word in ("Ana", "work"))
        assert await update(who=ana, other=work) == {"resultType": "complete"}
        asking = await look(gateway, task)
        assert (asking["status"], set(asking["inputRequests"])) == ("input_required", {"why"})
        tasks = gateway.gateway.proxy.tasks
        tasks.attend_all([])
        assert list(tasks.partial_answers) == [held.id]
        await update(why=work)
        assert tasks.partial_answers == {}
        newest = (await gateway.gateway.service.get(held.id)).continued
        await wait_until_settled(gateway, (await gateway.gateway.store.find(newest)).id)
        done = await look(gateway, task)
        assert (done["status"], done["taskId"]) == ("completed", held.id)
        assert json.loads(done["result"]["content"][0]["text"]) == {"who": ana, "why": work}
        assert gateway.ran()[1]["requestState"] == "theirs"
        assert await update(who=work) == {"resultType": "complete"}
        assert len(gateway.ran()) == 2


async def test_partial_answers_are_dropped_when_the_approval_ends():
    async with running(recorder=RecordingServer(on_call=asks_twice)) as gateway:
        task, held = await run_task(gateway)
        params = {"taskId": task["taskId"], "inputResponses": {"who": {"action": "decline"}}}
        await gateway.ask("tasks/update", params, declares=TASKS)
        tasks = gateway.gateway.proxy.tasks
        assert list(tasks.partial_answers) == [held.id]
        gateway.clock.now += held.terms.approved_for + 1
        tasks.attend_all([])
        assert tasks.partial_answers == {}


# Subscriptions.


async def subscribe(gateway, task_ids, **notifications):
    params = {"notifications": {"taskIds": task_ids, **notifications}, "_meta": dict(META)}
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = TASKS
    body = {"jsonrpc": "2.0", "id": "sub", "method": "subscriptions/listen", "params": params}
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}
    return await gateway.post(body, headers)


async def read_frames(answer, count):
    """Return this many frames of a stream."""
    frames = []
    async with asyncio.timeout(HANG):
        while len(frames) < count:
            block = await answer.content.readuntil(b"\n\n")
            frames += [json.loads(line[5:]) for line in block.splitlines() if line.startswith(b"data:")]
    return frames


async def test_a_subscriber_gets_each_change_of_its_own_tasks_only():
    async with running() as gateway:
        task = await begin(gateway)
        async with await subscribe(gateway, [task["taskId"], "hold_unknown"]) as answer:
            accepted, working = await read_frames(answer, 2)
            assert accepted["method"] == "notifications/subscriptions/acknowledged"
            assert accepted["params"]["notifications"] == {"taskIds": [task["taskId"]]}
            subscription = {"io.modelcontextprotocol/subscriptionId": "sub"}
            assert (working["method"], working["params"]["status"], working["params"]["_meta"]) == (
                "notifications/tasks", "working", subscription,
            )  # fmt: skip
            [held] = await gateway.held()
            await gateway.review(held)
            completed, end = await read_frames(answer, 2)
            assert completed["params"]["result"]["content"][0]["text"] == "ran create_note"
            assert (end["id"], end["result"]["_meta"]) == ("sub", subscription)


async def test_other_subscriptions_are_served_by_the_server_in_the_same_stream():
    go_on = asyncio.Event()

    async def listening(request, frame):
        assert frame["params"]["notifications"] == {"toolsListChanged": True, "taskIds": ["theirs"]}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in ("acknowledged", "changed"):
            await response.write(f'data: {{"jsonrpc":"2.0","method":"{word}"}}\n\n'.encode())
            await go_on.wait()
        return response

    async with running(recorder=RecordingServer(on_listen=listening)) as gateway:
        task = await begin(gateway)
        async with await subscribe(gateway, [task["taskId"], "theirs"], toolsListChanged=True) as answer:
            first, second = await read_frames(answer, 2)
            assert (first["method"], second["method"]) == ("acknowledged", "notifications/tasks")
            go_on.set()
            assert (await read_frames(answer, 1))[0]["method"] == "changed"


async def test_a_servers_refusal_of_a_subscription_is_relayed():
    async def refusing(_, frame):
        return error(frame, -32601, "no", status=404)

    async with running(recorder=RecordingServer(on_listen=refusing)) as gateway:
        task = await begin(gateway)
        async with await subscribe(gateway, [task["taskId"]], toolsListChanged=True) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("task_ids", [None, 5, {}, [5, None, ["hold_x"]]])
async def test_a_subscription_to_malformed_task_ids_is_relayed(task_ids):
    async with running() as gateway, await subscribe(gateway, task_ids) as answer:
        assert answer.status == 200
        assert gateway.recorder.received[-1].frame["params"]["notifications"] == {"taskIds": task_ids}


# The dialect of 2025-11-25.

OLD = {"MCP-Protocol-Version": "2025-11-25"}
ALL = "approvals: {tasks: all}"


async def old(gateway, method, **params):
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with await gateway.post(body, OLD) as answer:
        return last_frame(await answer.read())


async def test_the_older_dialect_is_offered_if_the_config_says_so():
    async with running(more=ALL) as gateway:
        opening = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "x", "version": "1"},
        }
        offered = (await old(gateway, "initialize", **opening))["result"]["capabilities"]
        assert offered["tasks"] == {"cancel": {}, "requests": {"tools": {"call": {}}}}
        opening["protocolVersion"] = "2025-06-18"
        assert "tasks" not in (await old(gateway, "initialize", **opening))["result"]["capabilities"]
        tools = {tool["name"]: tool for tool in (await old(gateway, "tools/list"))["result"]["tools"]}
        assert tools["create_note"]["execution"] == {"taskSupport": "optional"}
        assert "execution" not in tools["get_note"]
    async with running() as gateway:
        opening["protocolVersion"] = "2025-11-25"
        assert "tasks" not in (await old(gateway, "initialize", **opening))["result"]["capabilities"]


async def test_a_2025_task_runs_after_approval_and_tasks_result_waits_for_it():
    async with running(more=ALL) as gateway:
        body = call("create_note", {"a": 1}, task={"ttl": 60000})
        async with await gateway.post(body, OLD) as answer:
            created = last_frame(await answer.read())["result"]
        [held] = await gateway.held()
        assert (created["task"]["taskId"], created["task"]["status"]) == (held.id, "working")
        assert held.id in created["_meta"]["io.modelcontextprotocol/model-immediate-response"]
        assert (await old(gateway, "tasks/get", taskId=held.id))["result"]["pollInterval"] == 5000
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(old(gateway, "tasks/result", taskId=held.id))
            await gateway.review(held)
            done = (await waiting)["result"]
        assert done["content"][0]["text"] == "ran create_note"
        assert done["_meta"]["io.modelcontextprotocol/related-task"] == {"taskId": held.id}
        assert "task" not in gateway.ran()[0]
        assert (await old(gateway, "tasks/get", taskId=held.id))["result"]["status"] == "completed"
        assert (await old(gateway, "tasks/cancel", taskId=held.id))["error"]["code"] == -32602


async def test_an_allowed_call_is_a_task_too_if_requested_as_one():
    async with running(more=ALL) as gateway:
        async with await gateway.post(call("get_note", task={}), OLD) as answer:
            created = last_frame(await answer.read())["result"]["task"]
        done = (await old(gateway, "tasks/result", taskId=created["taskId"]))["result"]
        assert done["content"][0]["text"] == "ran get_note"
        held = await gateway.gateway.service.get(created["taskId"])
        assert (held.reviews, held.rule) == ((), "matrix[0]")
        assert held.expires_at == held.created_at + held.terms.approved_for


async def test_a_client_that_leaves_does_not_consume_the_next_events():
    go_on = asyncio.Event()

    async def telling(request, frame):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in ("first", "second"):
            note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": word}}
            await response.write(sse.build_event(json.dumps(note).encode()))
            await go_on.wait()
        answer = {"jsonrpc": "2.0", "id": frame["id"], "result": {"content": []}}
        await response.write(sse.build_event(json.dumps(answer).encode()))
        return response

    async def until(listening):
        """Wait until so many listen for the call, besides its run."""
        async with asyncio.timeout(HANG):
            while len(gateway.gateway.service.wakeups.listening[held.id]) != 1 + listening:
                await asyncio.sleep(0)

    async with running(more=ALL, recorder=RecordingServer(on_call=telling)) as gateway:
        async with await gateway.post(call("create_note", task={}), OLD) as answer:
            task_id = last_frame(await answer.read())["result"]["task"]["taskId"]
        asking = {"jsonrpc": "2.0", "id": 1, "method": "tasks/result", "params": {"taskId": task_id}}
        [held] = await gateway.held()
        await gateway.review(held)
        async with await gateway.post(asking, OLD) as leaves:
            assert (await read_frames(leaves, 1))[0]["params"]["data"] == "first"
        await until(listening=0)
        async with await gateway.post(asking, OLD) as stays:
            await until(listening=1)
            go_on.set()
            said = await stays.read()
        assert b"second" in said
        assert "result" in last_frame(said)
        assert len(gateway.gateway.proxy.tasks.runs) == 0


async def test_a_2025_task_can_be_cancelled():
    async with running(more=ALL) as gateway:
        async with await gateway.post(call("create_note", task={}), OLD) as answer:
            task_id = last_frame(await answer.read())["result"]["task"]["taskId"]
        assert (await old(gateway, "tasks/cancel", taskId=task_id))["result"]["status"] == "cancelled"
        told = (await old(gateway, "tasks/result", taskId=task_id))["result"]
        assert (told["isError"], told["content"][0]["text"]) == (
            True, "Cancelled: the agent cancelled the task. NOT EXECUTED.",
        )  # fmt: skip


async def test_a_servers_error_is_the_answer_to_tasks_result():
    async def fails(_, frame):
        return error(frame, -32050, "no")

    async with running(more=ALL, recorder=RecordingServer(on_call=fails)) as gateway:
        async with await gateway.post(call("create_note", task={}), OLD) as answer:
            task_id = last_frame(await answer.read())["result"]["task"]["taskId"]
        [held] = await gateway.held()
        await gateway.review(held)
        assert (await old(gateway, "tasks/result", taskId=task_id))["error"]["code"] == -32050


async def test_a_server_with_its_own_tasks_keeps_them():
    recorder = RecordingServer(capabilities={"tools": {}, "tasks": {"requests": {}}}, session="s1")
    async with running(more=ALL, recorder=recorder) as gateway:
        opening = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "x", "version": "1"},
        }
        found = (await old(gateway, "initialize", **opening))["result"]["capabilities"]
        assert found["tasks"] == {"requests": {}}


async def test_calls_of_a_server_with_its_own_tasks_wait_on_the_connection():
    for capabilities in ({"extensions": {"io.modelcontextprotocol/tasks": {}}}, {"tasks": {}}):
        async with (
            running(recorder=RecordingServer(capabilities=capabilities)) as gateway,
            asyncio.TaskGroup() as tasks,
        ):
            agent = tasks.create_task(gateway.ask("tools/call", CALL, declares=TASKS))
            [held] = await gateway.held()
            await gateway.review(held)
            assert (await agent).result["content"][0]["text"] == "ran create_note"


@pytest.mark.parametrize("task_id", [5, None, ["hold_x"]])
async def test_malformed_task_ids_are_relayed(task_id):
    async with running() as gateway:
        await gateway.ask("tasks/get", {"taskId": task_id}, declares=TASKS)
        assert gateway.recorder.received[-1].frame["method"] == "tasks/get"
