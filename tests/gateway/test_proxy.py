"""The path of one tool call, through a real listener to a server that records every byte it receives."""

import asyncio
import json

import msgspec
import pytest

from approvals.errors import StoreError
from approvals.lifecycle import REPEATED_FOR
from approvals.model import Decision, State
from approvals.presence import MIN_ATTENDED
from gateway.call.limiter import WindowLimiter
from gateway.call.sessions import MAX_OPENING
from gateway.hold.held_answer import REPEAT_THE_CALL
from gateway.upstreams.reply import Reply
from gateways import META, MODERN, TASKS, call, last_frame, running, text
from hang import HANG
from recording_server import RecordingServer, error, result
from replacing import replace


async def test_an_allowed_call_reaches_the_server_at_once(gateway):
    answer = await gateway.call("get_note", {"id": 1})
    assert text(answer) == "ran get_note"
    assert gateway.ran() == [{"name": "get_note", "arguments": {"id": 1}}]
    assert await gateway.kinds() == ["call.allowed"]


async def test_a_denied_call_gets_a_text_and_nothing_reaches_the_server(gateway):
    answer = await gateway.call("delete_note", id="x")
    assert answer["id"] == "x"
    assert answer["result"]["isError"] is True
    assert text(answer) == "Denied by policy: notes are kept. NOT EXECUTED."
    assert gateway.ran() == []
    assert await gateway.kinds() == ["call.denied"]


async def test_a_held_call_runs_once_when_it_is_approved(gateway):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note", {"text": "hi"}, id=7))
        [held] = await gateway.held()
        assert gateway.ran() == []
        await gateway.review(held)
        answer = await agent
    assert answer["id"] == 7
    assert text(answer) == "ran create_note"
    assert gateway.ran() == [{"name": "create_note", "arguments": {"text": "hi"}}]
    assert await gateway.kinds() == [
        "hold.pending",
        "hold.approved",
        "hold.forwarding",
        "hold.completed",
        "hold.collected",
    ]


async def test_a_denied_held_call_never_runs_and_the_agent_gets_the_reason(gateway):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        await gateway.review(held, Decision.DENY, "use the staging account")
        answer = await agent
    assert (
        text(answer)
        == "Denied by alice: use the staging account. NOT EXECUTED. Asking again will not change this."
    )
    assert answer["result"]["_meta"]["okayed/approval"]["state"] == "denied"
    assert gateway.ran() == []


async def test_the_argument_bytes_reach_the_server_unchanged(gateway):
    odd = b'{ "a":1e6,"b" : 1.0, "c":-0, "d":12345678901234567890123456789, "e":"\\u0041\\u0000", "f":0.1000000000000000055 }'
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":'
        + odd
        + b',"name":"create_note"}}'
    )
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.post(body))
        [held] = await gateway.held()
        assert held.call.arguments == odd
        await gateway.review(held)
        await (await agent).read()
    assert odd in gateway.recorder.calls[0].body


async def test_a_call_without_an_answer_expires(gateway):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        gateway.clock.now = held.expires_at
        await gateway.gateway.service.sweep()
        answer = await agent
    assert text(answer) == "Nobody answered within 15 min. NOT EXECUTED. You may ask again."
    assert gateway.ran() == []


async def test_after_its_wait_the_client_gets_waiting_then_collects_by_repeating():
    async with running(more="approvals: {hold_for: 1s}") as gateway:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note", {"n": 1}))
            [held] = await gateway.held()
            gateway.clock.now += 1
            gateway.gateway.service.wakeups.wake(held.id)
            waiting = await agent
        assert text(waiting) == (
            f"WAITING: a person has to approve this call ({held.id}). It has NOT run. Nothing is wrong."
            " To get the answer, make the same call with the same arguments; it runs at most once and can be asked for"
            " until 08:15 UTC. If you have other work, do it first, or tell your user and stop."
        )
        assert waiting["result"]["isError"] is True
        await gateway.gateway.service.sweep()
        await gateway.review(held)
        assert gateway.ran() == []  # approved, but without a waiting client: it does not run
        assert text(await gateway.call("create_note", {"n": 1}, id=2)) == "ran create_note"
        assert len(gateway.ran()) == 1


async def test_a_repeat_joins_the_waiting_call(gateway):
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(gateway.call("create_note", {"a": 1, "b": 2}, id=1))
        [held] = await gateway.held()
        second = tasks.create_task(gateway.call("create_note", {"b": 2, "a": 1}, id=1))
        while gateway.gateway.service.presence.clients[held.id] < 2:
            await asyncio.sleep(0)
        await gateway.review(held)
        answers = [await first, await second]
    assert [text(answer) for answer in answers] == ["ran create_note"] * 2
    assert len(gateway.ran()) == 1
    assert len((await gateway.gateway.store.select()).items) == 1


async def test_three_held_calls_with_the_same_id_each_get_their_own_answer(gateway):
    async with asyncio.TaskGroup() as tasks:
        agents = [tasks.create_task(gateway.call("create_note", {"n": n}, id=1)) for n in range(3)]
        for held in await gateway.held(3):
            n = json.loads(held.call.arguments)["n"]
            await gateway.review(held, Decision.DENY, f"number {n}")
        answers = [await agent for agent in agents]
    assert [text(answer) for answer in answers] == [
        f"Denied by alice: number {n}. NOT EXECUTED. Asking again will not change this." for n in range(3)
    ]


async def test_a_call_stays_reviewable_after_its_client_hangs_up_and_is_collected_later(gateway):
    agent = asyncio.ensure_future(gateway.call("create_note", {"n": 1}))
    [held] = await gateway.held()
    agent.cancel()
    await asyncio.wait([agent])
    while held.id in gateway.gateway.service.presence.clients:
        await asyncio.sleep(0)
    earlier = replace(held, created_at=held.created_at - MIN_ATTENDED)
    assert await gateway.gateway.service.find_attended([earlier]) == frozenset()
    await gateway.review(held)
    assert gateway.ran() == []
    assert text(await gateway.call("create_note", {"n": 1})) == "ran create_note"
    assert len(gateway.ran()) == 1


def cancel(request_id):
    """Send what SDK clients send at their timeout; most of them keep the connection."""
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}


async def test_nothing_runs_for_a_client_that_cancelled_until_it_repeats_the_call(gateway):
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note", {"n": 1}, id=7))
        [held] = await gateway.held()
        async with await gateway.post(cancel(7)) as answer:
            assert answer.status == 202
        assert text(await agent).startswith("WAITING: a person has to approve this call")
    await gateway.review(held)
    assert gateway.ran() == []
    async with asyncio.timeout(HANG):
        assert text(await gateway.call("create_note", {"n": 1}, id=8)) == "ran create_note"
    assert len(gateway.ran()) == 1


async def test_nothing_runs_for_a_client_that_cancels_during_the_tool_listing():
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(*_):
        asked.set()
        await answer.wait()

    async with running() as gateway, asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note", id=7))
        [held] = await gateway.held()
        gateway.recorder.on_list = slow
        gateway.gateway.catalogue.mark_stale("notes")
        await gateway.review(held)
        await asked.wait()
        async with await gateway.post(cancel(7)) as taken:
            assert taken.status == 202
        answer.set()
        assert text(await agent).startswith(f"WAITING: this call ({held.id}) is approved.")
        assert gateway.ran() == []
        assert text(await gateway.call("create_note", id=8)) == "ran create_note"


@pytest.mark.parametrize(("version", "crosses"), [("2025-11-25", True), (MODERN, False)])
@pytest.mark.parametrize("request_id", [1, True])
async def test_without_sessions_cancellations_are_not_sent_to_the_server(
    gateway, version, crosses, request_id
):
    headers = {"MCP-Protocol-Version": version}
    frame = cancel(request_id)
    if version == MODERN:
        headers["Mcp-Method"] = frame["method"]
        frame["params"]["_meta"] = META
    async with await gateway.post(frame, headers) as answer:
        assert answer.status == 202
    assert any(one.frame.get("method") == frame["method"] for one in gateway.recorder.received) is crosses


async def test_a_result_that_arrives_during_a_cancellation_can_still_be_collected():
    release = asyncio.Event()

    async def slow(_, frame):
        await release.wait()
        return result(frame, {"content": [{"type": "text", "text": "done"}]})

    async with (
        running(recorder=RecordingServer(on_call=slow)) as gateway,
        asyncio.timeout(HANG),
        asyncio.TaskGroup() as tasks,
    ):
        agent = tasks.create_task(gateway.call("create_note", id=7))
        [held] = await gateway.held()
        await gateway.review(held)
        await gateway.recorder.called()
        await (await gateway.post(cancel(7))).read()
        release.set()
        await agent
        assert text(await gateway.call("create_note", id=8)) == "done"
        assert len(gateway.ran()) == 1


async def test_cancelling_another_request_ends_no_wait(gateway):
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note", id=7))
        [held] = await gateway.held()
        for other in (8, "7", True, None):
            await (await gateway.post(cancel(other))).read()
        await gateway.review(held)
        assert text(await agent) == "ran create_note"


async def test_cancelling_cancels_the_call_if_the_config_says_so():
    async with running(more="approvals: {on_disconnect: cancel}") as gateway:
        async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note", id=7))
            [held] = await gateway.held()
            await (await gateway.post(cancel(7))).read()
            await agent
        async with asyncio.timeout(HANG):
            while (await gateway.gateway.service.get(held.id)).state is State.PENDING:
                await asyncio.sleep(0)
        assert (await gateway.gateway.service.get(held.id)).state is State.CANCELLED
        assert gateway.ran() == []


async def test_hanging_up_cancels_the_call_if_the_config_says_so():
    async with running(more="approvals: {on_disconnect: cancel}") as gateway:
        agent = asyncio.ensure_future(gateway.call("create_note"))
        [held] = await gateway.held()
        agent.cancel()
        await asyncio.wait([agent])
        async with asyncio.timeout(HANG):
            while (await gateway.gateway.service.get(held.id)).state is State.PENDING:
                await asyncio.sleep(0)
        assert (await gateway.gateway.service.get(held.id)).state is State.CANCELLED
        assert gateway.ran() == []


async def test_an_approval_that_is_not_collected_expires(gateway):
    agent = asyncio.ensure_future(gateway.call("create_note"))
    [held] = await gateway.held()
    agent.cancel()
    await asyncio.wait([agent])
    await gateway.review(held)
    gateway.clock.now += 600
    await gateway.gateway.service.sweep()
    assert (await gateway.gateway.service.get(held.id)).state is State.EXPIRED
    assert gateway.ran() == []


async def test_a_client_that_leaves_while_the_call_runs_collects_its_result():
    release = asyncio.Event()

    async def slow(_, frame):
        await release.wait()
        return result(frame, {"content": [{"type": "text", "text": "done"}]})

    async with running(recorder=RecordingServer(on_call=slow)) as gateway:
        agent = asyncio.ensure_future(gateway.call("create_note"))
        [held] = await gateway.held()
        await gateway.review(held)
        await gateway.recorder.called()
        agent.cancel()
        await asyncio.wait([agent])
        release.set()
        assert text(await gateway.call("create_note", id=9)) == "done"
        assert len(gateway.ran()) == 1


async def test_a_repeat_of_a_collected_call_is_a_new_call_that_names_its_twin(gateway):
    for _ in range(2):
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            await gateway.review(held)
            await agent
        gateway.clock.now += REPEATED_FOR
    second, first = (await gateway.gateway.store.select()).items
    assert second.twin == first.id
    assert len(gateway.ran()) == 2


async def test_two_approvals_are_needed_if_the_rule_says_so():
    async with running(
        "default: deny\ntools: {create_note: {action: require_approval, approvals: 2}}"
    ) as gateway:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            await gateway.review(held)
            await gateway.review(held)
            assert gateway.ran() == []
            await gateway.review(held, who="bob")
            assert text(await agent) == "ran create_note"


async def test_the_third_of_two_calls_is_over_the_limit():
    async with running("default: allow\ntools: {get_note: {rate_limit: {max: 2, window: 60}}}") as gateway:
        await gateway.call("get_note")
        gateway.clock.now += 20
        await gateway.call("get_note")
        answer = await gateway.call("get_note")
        assert text(answer) == "Rate limit: 2 calls per 60 s for get_note. NOT EXECUTED. Try again in 40 s."
        assert len(gateway.ran()) == 2
        gateway.clock.now += 40
        assert text(await gateway.call("get_note")) == "ran get_note"


async def test_a_limit_may_ask_a_person_instead():
    rule = (
        "default: allow\ntools: {get_note: {rate_limit: {max: 1, window: 60, on_exceed: require_approval}}}"
    )
    async with running(rule) as gateway:
        await gateway.call("get_note")
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("get_note"))
            [held] = await gateway.held()
            await gateway.review(held)
            assert text(await agent) == "ran get_note"


async def test_a_made_up_session_id_has_no_limit_of_its_own():
    rule = "default: allow\ntools: {get_note: {rate_limit: {max: 1, window: 60}}}"
    async with running(rule) as gateway:
        for number, expected in enumerate(["ran get_note", "Rate limit: 1 call per 60 s"]):
            params = {"name": "get_note", "arguments": {}}
            headers = {"Mcp-Session-Id": f"made-up-{number}"}
            answer = await gateway.ask("tools/call", params, headers=headers)
            assert answer.result["content"][0]["text"].startswith(expected)


@pytest.mark.parametrize("verb", ["GET", "DELETE", "POST"])
async def test_in_the_revision_without_sessions_another_agents_session_is_unreachable(verb):
    async with running("default: allow", recorder=RecordingServer(session="s1", modern=False)) as gateway:
        opening = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "a", "version": "1"},
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opening}
        (await gateway.post(body)).close()
        headers = {"Mcp-Session-Id": "s1", "MCP-Protocol-Version": MODERN, "Accept": "text/event-stream"}
        if verb == "POST":
            await gateway.ask("tools/list", {}, headers=headers)
        else:
            (await gateway.http.request(verb, gateway.url, headers=headers)).close()
        reached = [
            one for one in gateway.recorder.received if one.verb == verb and MODERN in one.headers.values()
        ]
        assert reached
        assert not any("mcp-session-id" in one.headers for one in reached)
        assert await gateway.gateway.store.find_session("notes", "s1") is not None


ASKING = "tools: {get_note: {rate_limit: {max: 1, window: 6, on_exceed: require_approval}}}"


async def test_a_call_held_over_a_limit_is_the_same_call_after_the_window():
    async with running(f"default: allow\n{ASKING}", more="approvals: {hold_for: 1s}") as gateway:
        await gateway.call("get_note", {"n": 1})
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("get_note", {"n": 2}))
            [held] = await gateway.held()
            await gateway.pass_time(2)
            assert "WAITING" in text(await agent)
        gateway.clock.now += 60
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("get_note", {"n": 2}))
            await gateway.review(held, Decision.DENY, "never do this")
            assert "never do this" in text(await agent)
        assert len(gateway.ran()) == 1


async def test_an_asking_limit_does_not_refuse_calls_that_need_approval_anyway():
    async with running(f"default: require_approval\n{ASKING}") as gateway, asyncio.TaskGroup() as tasks:
        agents = [tasks.create_task(gateway.call("get_note", {"n": n})) for n in range(2)]
        for held in await gateway.held(2):
            assert "limit" not in held.rule
            await gateway.review(held)
        assert [text(await agent) for agent in agents] == ["ran get_note"] * 2


async def test_collecting_a_held_call_does_not_count_against_its_limit_again():
    rule = "default: require_approval\ntools: {create_note: {rate_limit: {max: 1, window: 60}}}"
    async with running(rule) as gateway:
        agent = asyncio.ensure_future(gateway.call("create_note"))
        [held] = await gateway.held()
        agent.cancel()
        await asyncio.wait([agent])
        await gateway.review(held)
        assert text(await gateway.call("create_note")) == "ran create_note"
        gateway.clock.now += REPEATED_FOR
        assert text(await gateway.call("create_note")).startswith("Rate limit: 1 call per 60 s")


async def test_arguments_that_violate_the_schema_are_refused_with_path_and_bound():
    rule = "default: allow\ntools: {create_note: {arguments: {properties: {amount: {minimum: 0}}}}}"
    async with running(rule) as gateway:
        answer = await gateway.call("create_note", {"amount": -5})
        assert (
            text(answer)
            == "Denied by policy: arguments.amount: -5 is less than the minimum of 0. NOT EXECUTED."
        )
        assert gateway.ran() == []


HOSTILE = [
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_note","name":"create_note"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_note","n\\u0061me":"create_note"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"create_note"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_note","Name":"create_note"}}',
    b'{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"create_note"}}',
    b'{"jsonrpc":"2.0","id":true,"method":"tools/call","params":{"name":"create_note"}}',
    b'{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{"name":"create_note"}}',
    b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"create_note"}}',
    b'[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create_note"}}]',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create_note","arguments":{"a":NaN}}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create_note","arguments":{"a":1e400}}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create_note","arguments":null}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create_note"}}'.encode("utf-16"),
    b"\xef\xbb\xbf" + b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create_note"}}',
]


@pytest.mark.parametrize("body", HOSTILE)
async def test_an_ambiguous_frame_is_refused_and_recorded(gateway, body):
    async with await gateway.post(body) as answer:
        assert answer.status == 400
        assert "error" in last_frame(await answer.read())
    assert gateway.recorder.received == []
    assert await gateway.kinds() == ["frame.refused"]


@pytest.mark.parametrize(
    "name", ["create_notе", "ｇet_note", "get_note ", "Get_Note", "get_note\n", "get_note\x00", "g" * 129, ""]
)
async def test_a_name_that_only_looks_like_an_allowed_tool_is_not_allowed(name):
    async with running("default: deny\ntools: {get_note: {action: allow}}") as gateway:
        assert text(await gateway.call(name)).startswith("Denied by policy:")
        assert gateway.ran() == []


async def test_an_unknown_method_gets_an_error_and_an_unknown_notification_is_dropped(gateway):
    async with await gateway.post(
        {"jsonrpc": "2.0", "id": 1, "method": "TOOLS/CALL", "params": {}}
    ) as answer:
        assert last_frame(await answer.read())["error"]["code"] == -32601
    async with await gateway.post({"jsonrpc": "2.0", "method": "x/y"}) as answer:
        assert answer.status == 202
    assert gateway.recorder.received == []


async def test_hidden_tools_are_missing_from_the_list_and_denied_when_called():
    async with running("default: allow\nhide: ['delete_*']") as gateway:
        async with await gateway.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}) as answer:
            listed = last_frame(await answer.read())["result"]
        assert [tool["name"] for tool in listed["tools"]] == ["get_note", "create_note"]
        assert listed["cacheScope"] == "private"
        assert (
            text(await gateway.call("delete_note"))
            == "Denied by policy: There is no tool delete_note. NOT EXECUTED."
        )


async def test_an_unknown_server_is_not_found(gateway):
    gateway.url = gateway.url.replace("/notes", "/other")
    async with await gateway.post(call("get_note")) as answer:
        assert answer.status == 404
        assert last_frame(await answer.read())["id"] is None


async def test_a_changed_definition_voids_the_approval(gateway):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        gateway.recorder.tools[1]["description"] = "Now sends the note to everybody."
        gateway.clock.now += 31
        gateway.gateway.catalogue.mark_stale("notes")
        await gateway.gateway.catalogue.refresh("notes")
        await gateway.review(held)
        assert "the definition of this tool changed" in text(await agent)
    assert gateway.ran() == []


async def test_a_policy_that_now_denies_stops_an_approved_call(gateway):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        async with running("default: deny") as other:
            policy = other.gateway.proxy.settings.policy
            gateway.gateway.proxy.adopt(replace(gateway.gateway.proxy.settings, policy=policy))
        await gateway.review(held)
        assert "the policy now denies this call" in text(await agent)
    assert gateway.ran() == []


AGENTS = """
agents:
  - {name: one, token_sha256: 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed}
  - {name: two, token_sha256: 3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3}
"""


@pytest.mark.parametrize("servers", [None, []])
async def test_a_call_is_void_after_its_agent_lost_the_server(servers):
    async with running(more=AGENTS) as gateway, asyncio.TaskGroup() as tasks:
        gateway.http.headers["Authorization"] = "Bearer one"
        agent = tasks.create_task(gateway.call("create_note"))
        await gateway.held()
        one, two = gateway.gateway.config.agents
        left = [two] if servers is None else [msgspec.structs.replace(one, servers=servers), two]
        await gateway.gateway.adopt(msgspec.structs.replace(gateway.gateway.config, agents=left))
        assert "the agent may no longer use this server" in text(await agent)
    assert gateway.ran() == []


async def test_an_approval_from_before_the_removal_does_not_run_either(gateway):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        proxy = gateway.gateway.proxy
        proxy.adopt(replace(proxy.settings, may_use=lambda agent, _server: agent != "local"))
        await gateway.review(held)
        assert "the agent may no longer use this server" in text(await agent)
    assert gateway.ran() == []


@pytest.mark.parametrize("stricter", ["approvals: 2", "approvers: [bob]"])
async def test_a_policy_that_now_requires_more_stops_an_approved_call(gateway, stricter):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        rule = f"default: deny\ntools: {{create_note: {{action: require_approval, {stricter}}}}}"
        async with running(rule) as other:
            setting = gateway.gateway.proxy.settings
            gateway.gateway.proxy.settings = replace(setting, policy=other.gateway.proxy.settings.policy)
        await gateway.review(held)
        assert "the policy now requires other or more approvals" in text(await agent)
    assert gateway.ran() == []


async def test_limit_windows_survive_a_restart():
    async with running("default: allow\ntools: {get_note: {rate_limit: {max: 2, window: 60}}}") as gateway:
        await gateway.call("get_note")
        await gateway.call("get_note")
        kept = await gateway.gateway.store.hits(gateway.clock.now)
        assert len(kept) == 2
        gateway.gateway.proxy._limiter = await WindowLimiter.load(gateway.gateway.store, gateway.clock.now)
        assert text(await gateway.call("get_note")).startswith("Rate limit: 2 calls per 60 s")
        assert await gateway.gateway.store.hits(gateway.clock.now + 61) == []


async def test_amounts_add_up_across_a_restart_and_an_impossible_amount_says_so():
    rule = "spend: {of: args.text, max: 10, window: 60}"
    async with running(f"default: allow\ntools: {{create_note: {{{rule}}}}}") as gateway:
        store = gateway.gateway.store
        assert "args.text must be a number" in text(await gateway.call("create_note", {"text": "6"}))
        await gateway.call("create_note", {"text": 6})
        await gateway.call("create_note", {"text": 0})
        kept = await store.hits(gateway.clock.now)
        assert [amount for _, _, amount in kept] == [6]
        gateway.gateway.proxy._limiter = await WindowLimiter.load(store, gateway.clock.now)
        said = "Rate limit: args.text may add up to 10 per 60 s for create_note. NOT EXECUTED."
        assert text(await gateway.call("create_note", {"text": 5})) == f"{said} Try again in 60 s."
        assert (
            text(await gateway.call("create_note", {"text": 11}))
            == f"{said} This call alone exceeds the limit."
        )
        await gateway.call("create_note", {"text": 4})
        assert len(await store.hits(gateway.clock.now)) == 2


async def test_when_the_store_fails_nothing_runs_and_the_agent_gets_an_error(gateway):
    class Broken(type(gateway.gateway.store)):
        def post(self, *events):
            raise StoreError("The disk is full.")

        def post_entry(self, entry):
            raise StoreError("The disk is full.")

        async def add(self, call, *events, limits=()):
            raise StoreError("The disk is full.")

    gateway.gateway.store.__class__ = Broken
    for tool in ("get_note", "create_note", "delete_note"):
        answer = await gateway.call(tool, id=5)
        assert answer == {
            "jsonrpc": "2.0",
            "id": 5,
            "error": {"code": -32603, "message": "The disk is full. Nothing was executed for this request."},
        }
    assert gateway.ran() == []


async def test_a_servers_error_is_the_answer_to_the_agent():
    async def fail(_, frame):
        return error(frame, -32000, "disk full")

    async with running(recorder=RecordingServer(on_call=fail)) as gateway:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            await gateway.review(held)
            assert (await agent)["error"] == {"code": -32000, "message": "disk full"}
        assert (await gateway.gateway.service.get(held.id)).state is State.UPSTREAM_ERROR


async def test_a_client_that_accepts_only_json_gets_one_json_frame(gateway):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.post(call("create_note"), {"Accept": "application/json"}))
        [held] = await gateway.held()
        await gateway.review(held)
        async with await agent as answer:
            assert answer.content_type == "application/json"
            assert text(await answer.json()) == "ran create_note"


async def test_a_client_with_a_progress_token_gets_progress(gateway):
    body = call("create_note", _meta={"progressToken": "t1"})
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.post(body))
        [held] = await gateway.held()
        await gateway.review(held)
        async with await agent as answer:
            frames = [
                json.loads(line[5:])
                for line in (await answer.read()).splitlines()
                if line.startswith(b"data:")
            ]
    assert frames[0]["method"] == "notifications/progress"
    assert frames[0]["params"]["progressToken"] == "t1"
    told = [frame["params"]["progress"] for frame in frames[:-1]]
    assert told == sorted(set(told))


async def test_a_fault_in_the_gateway_is_an_error_under_the_id_and_promises_nothing(gateway, caplog):
    class Broken(type(gateway.gateway.store)):
        async def add(self, call, *events, limits=()):
            raise RuntimeError("a bug")

    gateway.gateway.store.__class__ = Broken
    said = "The gateway failed while handling this request; see its log. The request may or may not have been executed."
    assert await gateway.call("create_note", id=5) == {
        "jsonrpc": "2.0",
        "id": 5,
        "error": {"code": -32603, "message": said},
    }
    assert "a bug" in caplog.text


async def test_when_the_store_fails_during_a_run_no_message_says_it_did_not_run(gateway):
    class Broken(type(gateway.gateway.store)):
        async def get(self, call_id):
            if gateway.ran():
                raise StoreError("The disk cannot be read.")
            return await super().get(call_id)

    gateway.gateway.store.__class__ = Broken
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note", id=5))
        [held] = await gateway.held()
        await gateway.review(held)
        answer = await agent
    assert answer["error"]["message"] == f"The disk cannot be read. {REPEAT_THE_CALL}"
    assert len(gateway.ran()) == 1


@pytest.mark.parametrize("declares", [{}, TASKS])
async def test_an_answer_that_cannot_be_marked_collected_is_still_sent(gateway, declares):
    class Full(type(gateway.gateway.store)):
        async def swap(self, old, new, *events):
            if new.collected:
                raise StoreError("The disk is full.")
            await super().swap(old, new, *events)

    gateway.gateway.store.__class__ = Full
    params = {"name": "create_note", "arguments": {}}
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.ask("tools/call", params, declares=declares))
        [held] = await gateway.held()
        held = await gateway.review(held)
        async with asyncio.timeout(HANG):
            while held.settled_at is None:
                held = await gateway.gateway.service.wait_for_change(held, 5)
        answer = (await agent).result
    if declares:
        answer = (await gateway.ask("tasks/get", {"taskId": held.id}, declares=TASKS)).result["result"]
    assert answer["content"][0]["text"] == "ran create_note"
    assert len(gateway.ran()) == 1


OPENING = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}


@pytest.mark.parametrize(("method", "params"), [("initialize", OPENING), ("tools/list", {})])
async def test_a_servers_reply_is_closed_when_its_answer_cannot_be_sent(gateway, method, params):
    class Broken(type(gateway.gateway.store)):
        async def save_session(self, session):
            raise StoreError("The disk is full.")

    closed = []

    async def answers(verb, body, headers):
        return Reply(
            status=200,
            headers={"Content-Type": "application/json", "Mcp-Session-Id": "s1"},
            body=b"<html>",
            close=lambda: closed.append(method),
        )

    await gateway.call("get_note")  # the tools are known
    gateway.gateway.store.__class__ = Broken
    gateway.gateway.proxy.settings.upstreams["notes"].send = answers
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with await gateway.post(body) as answer:
        assert (await answer.json())["error"]["code"] == -32603
    assert closed == [method]


@pytest.mark.parametrize(("more", "opens"), [(0, True), (1, False)])
async def test_an_initialize_that_is_too_large_to_store_opens_no_session(more, opens):
    info = {"name": "x", "version": ""}
    body = {"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "clientInfo": info}}  # fmt: skip
    info["version"] = "x" * (MAX_OPENING - len(json.dumps(body)) + more)
    async with running(recorder=RecordingServer(session="s")) as gateway, await gateway.post(body) as answer:
        frame = await answer.json()
        kept = await gateway.gateway.store.find_session("notes", "s")
        sent = [one for one in gateway.recorder.received if one.frame.get("method") == "initialize"]
        assert ("result" in frame, kept is not None, len(sent)) == (opens, opens, int(opens))
    if not opens:
        assert (answer.status, frame["id"], frame["error"]) == (
            400,
            7,
            {"code": -32602, "message": "The params of initialize are limited to 65536 bytes."},
        )


async def test_the_approved_bytes_run_even_if_a_repeat_spells_them_differently(gateway):
    def spelt(arguments):
        return (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create_note","arguments":%s}}'
            % arguments
        )

    agent = asyncio.ensure_future(gateway.post(spelt(b'{"a":1, "b":2}')))
    [held] = await gateway.held()
    agent.cancel()
    while held.id in gateway.gateway.service.presence.clients:
        await asyncio.sleep(0)
    await gateway.review(held)
    async with await gateway.post(spelt(b'{"b":2,"a":1}')) as answer:
        assert text(last_frame(await answer.read())) == "ran create_note"
    [sent] = gateway.recorder.calls
    assert b'"arguments":{"a":1, "b":2}' in sent.body


async def test_with_audit_allowed_wait_nothing_is_sent_without_its_event():
    async with running("default: allow", more="audit: {allowed: wait}") as gateway:

        class Full(type(gateway.gateway.store)):
            async def append(self, *events):
                raise StoreError("The disk is full.")

        gateway.gateway.store.__class__ = Full
        answer = await gateway.call("create_note")
        assert answer["error"]["message"] == "The disk is full. Nothing was executed for this request."
        assert gateway.ran() == []


async def test_a_notifications_headers_must_match_its_body_too(gateway):
    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "notifications/progress"}
    async with await gateway.post(body, headers) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, -32020)
    assert gateway.recorder.received == []
