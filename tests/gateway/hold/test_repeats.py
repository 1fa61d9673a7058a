"""Repeats that need no new approval: after a denial, and right after an outcome was sent."""

import asyncio

import pytest
from msgspec.structs import replace

from approvals.lifecycle import REPEATED_FOR
from approvals.model import Decision, State
from gateway.call.delivered import DeliveredAnswers
from gateway.config.options import ToolOptions
from gateway.hold.repeats import Repeats
from gateway.upstreams.reply import decide, read_body
from gateways import call, last_frame, running, text
from hang import HANG
from recording_server import RecordingServer, error, result
from silent_client import SilentClient

DENIED_TEXT = "Denied by alice: not in prod. NOT EXECUTED. Asking again will not change this."
AGENTS = """
agents:
  - {name: one, token_sha256: 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed}
  - {name: two, token_sha256: 3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3}
"""


async def deny(gateway, arguments=None, **headers):
    """Call the tool, let alice deny it, and return the text that the agent gets."""
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note", arguments, headers=headers))
        [held] = await gateway.held()
        await gateway.review(held, Decision.DENY, "not in prod")
        return text(await agent)


async def ask(gateway, arguments=None, **headers):
    """Call the tool again, and return the text that the agent gets at once."""
    async with asyncio.timeout(HANG), await gateway.post(call("create_note", arguments), headers) as answer:
        return text(last_frame(await answer.read()))


async def test_a_denial_answers_a_repeat_without_asking_a_person():
    async with running() as gateway:
        assert await deny(gateway) == DENIED_TEXT
        for _ in range(5):
            gateway.clock.now += 3
            assert await ask(gateway) == DENIED_TEXT
        assert len((await gateway.gateway.store.select()).items) == 1
        assert gateway.ran() == []


async def test_repeats_of_a_denied_call_are_recorded_once_a_minute():
    async with running() as gateway:
        await deny(gateway)
        for _ in range(13):
            await ask(gateway)
            gateway.clock.now += 10
        again = [one for one in await gateway.gateway.store.events() if one.kind == "call.denied"]
        [held] = (await gateway.gateway.store.select()).items
        assert [one.at - again[0].at for one in again] == [0, 60, 120]
        assert again[0].detail == {"rule": "default", "denial": held.id, "by": "alice"}


@pytest.mark.parametrize(
    ("options", "seconds"), [("", 600), ("approvals: {remember_denials: 1m}", 60), ("approvals: {remember_denials: 0}", 0)],
)  # fmt: skip
async def test_after_denied_for_a_repeat_of_a_denied_call_is_a_new_call(options, seconds):
    async with running(more=options) as gateway:
        said = await deny(gateway)
        assert said.endswith("Asking again will not change this.") is bool(seconds)
        gateway.clock.now += seconds
        await deny(gateway)
        assert len((await gateway.gateway.store.select()).items) == 2


async def test_a_denial_answers_only_the_same_call_of_the_same_agent():
    async with running(more=AGENTS) as gateway:
        one, two = {"Authorization": "Bearer one"}, {"Authorization": "Bearer two"}
        await deny(gateway, {"a": 1}, **one)
        assert await ask(gateway, {"a": 1}, **one) == DENIED_TEXT
        await deny(gateway, {"a": 2}, **one)
        await deny(gateway, {"a": 1}, **two)
        assert len((await gateway.gateway.store.select()).items) == 3


async def test_a_denial_ends_when_the_policy_changes():
    async with running() as gateway:
        await deny(gateway)
        config = gateway.gateway.config
        stricter = replace(config.policy, hide=["admin_*"])
        await gateway.gateway.adopt(replace(config, policy=stricter))
        await deny(gateway)
        assert len((await gateway.gateway.store.select()).items) == 2


async def test_a_denial_ends_when_the_definition_of_the_tool_changes():
    async with running(more="pin: warn") as gateway:
        await deny(gateway)
        gateway.recorder.tools[:] = [
            {**tool, "description": "Make a note anywhere."} for tool in gateway.recorder.tools
        ]
        gateway.gateway.catalogue.mark_stale("notes")
        await deny(gateway)
        assert len((await gateway.gateway.store.select()).items) == 2


async def test_a_denial_ends_when_another_rule_judges_the_call():
    policy = "default: require_approval\nmatrix: [{risk: [Critical], action: require_approval}]"
    async with running(policy) as gateway:
        await deny(gateway)
        config = gateway.gateway.config
        word = {"create_note": ToolOptions(risk="Critical")}
        servers = {"notes": replace(config.servers["notes"], tools=word)}
        await gateway.gateway.adopt(replace(config, servers=servers))
        await deny(gateway)
        assert [one.rule for one in (await gateway.gateway.store.select()).items] == ["matrix[0]", "default"]


async def test_a_denial_ends_when_the_servers_identity_changes():
    async with RecordingServer() as other, running() as gateway:
        await deny(gateway)
        config = gateway.gateway.config
        servers = {"notes": replace(config.servers["notes"], url=other.url)}
        await gateway.gateway.adopt(replace(config, servers=servers))
        await deny(gateway)
        assert len((await gateway.gateway.store.select()).items) == 2


async def test_a_denied_call_over_its_limit_stays_denied_and_is_not_counted():
    policy = "default: allow\ntools: {create_note: {rate_limit: {max: 1, window: 60, on_exceed: require_approval}}}"
    async with running(policy) as gateway:
        await ask(gateway, {"n": 0})
        await deny(gateway)
        gateway.clock.now += 120
        assert await ask(gateway) == DENIED_TEXT
        assert await ask(gateway, {"n": 1}) == "ran create_note"


# Outcomes that may have been lost.

REPEATED_TEXTS = ["ran create_note", "This call ran at 08:00 UTC; it was not run again."]


async def approve(gateway, arguments=None, **headers):
    """Call the tool, let alice approve it, and return the texts that the agent gets."""
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note", arguments, headers=headers))
        [held] = await gateway.held()
        await gateway.review(held)
        return texts(await agent)


async def repeat(gateway, arguments=None, **headers):
    """Call the tool again, and return the frame that the agent gets at once."""
    async with asyncio.timeout(HANG), await gateway.post(call("create_note", arguments), headers) as answer:
        return last_frame(await answer.read())


def texts(frame):
    return [one["text"] for one in frame["result"]["content"]]


async def sessions(gateway, *names):
    """Open sessions with these ids, and return their headers."""
    clients = [SilentClient(gateway) for _ in names]
    for client, name in zip(clients, names, strict=True):
        await client.connect(name)
    return [client.headers for client in clients]


async def test_an_outcome_is_sent_once_more_to_a_session_that_repeats_the_call_at_once():
    async with running() as gateway:
        [session] = await sessions(gateway, "s1")
        assert await approve(gateway, **session) == ["ran create_note"]
        gateway.clock.now += REPEATED_FOR - 1
        again = await repeat(gateway, **session)
        [held] = (await gateway.gateway.store.select()).items
        assert texts(again) == REPEATED_TEXTS
        assert again["result"]["_meta"]["okayed/approval"] == {
            "id": held.id, "state": "completed", "repeated": True,
        }  # fmt: skip
        assert len(gateway.ran()) == 1
        assert (await gateway.kinds())[-2:] == ["hold.collected", "hold.repeated"]


async def test_the_second_repeat_is_a_new_call():
    async with running() as gateway:
        await approve(gateway)
        assert texts(await repeat(gateway)) == REPEATED_TEXTS
        assert await approve(gateway) == ["ran create_note"]
        assert len(gateway.ran()) == 2


async def test_after_half_a_minute_a_repeat_is_a_new_call():
    async with running() as gateway:
        await approve(gateway)
        gateway.clock.now += REPEATED_FOR
        assert await approve(gateway) == ["ran create_note"]
        assert len(gateway.ran()) == 2


@pytest.mark.parametrize("between", ["get_note", "delete_note", "create_note", "tools/list"])
async def test_after_another_request_of_the_session_a_repeat_is_a_new_call(between):
    async with running() as gateway:
        [session] = await sessions(gateway, "s1")
        await approve(gateway, **session)
        if between == "create_note":
            await approve(gateway, {"other": 1}, **session)
        else:
            other = call(between)
            if between == "tools/list":
                other = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
            async with await gateway.post(other, session) as answer:
                await answer.read()
        assert await approve(gateway, **session) == ["ran create_note"]


async def test_a_ping_or_a_notification_is_not_another_request():
    async with running() as gateway:
        [session] = await sessions(gateway, "s1")
        await approve(gateway, **session)
        for frame in (
            {"jsonrpc": "2.0", "id": 2, "method": "ping"},
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
        ):
            async with await gateway.post(frame, session) as answer:
                await answer.read()
        assert texts(await repeat(gateway, **session)) == REPEATED_TEXTS


async def test_another_session_does_not_get_a_delivered_outcome():
    async with running() as gateway:
        one, two = await sessions(gateway, "s1", "s2")
        await approve(gateway, **one)
        assert await approve(gateway, **two) == ["ran create_note"]
        assert len(gateway.ran()) == 2


async def test_outcomes_of_calls_answered_together_can_each_be_repeated():
    async with running() as gateway:
        async with asyncio.TaskGroup() as tasks:
            agents = [tasks.create_task(gateway.call("create_note", {"n": n})) for n in range(3)]
            for held in await gateway.held(3):
                await gateway.review(held)
            [await agent for agent in agents]
        assert [texts(await repeat(gateway, {"n": n})) for n in range(3)] == [REPEATED_TEXTS] * 3
        assert len(gateway.ran()) == 3


async def test_one_of_two_simultaneous_repeats_is_answered_the_other_is_a_new_call():
    async with running() as gateway:
        await approve(gateway)
        async with asyncio.TaskGroup() as tasks:
            agents = [tasks.create_task(gateway.call("create_note", id=number)) for number in (8, 9)]
            [held] = await gateway.held()
            await gateway.review(held)
            answers = sorted([texts(await agent) for agent in agents], key=len)
        assert answers == [["ran create_note"], REPEATED_TEXTS]
        assert len(gateway.ran()) == 2


async def test_after_a_restart_a_sessions_first_request_may_be_a_repeat():
    async with running() as gateway:
        [session] = await sessions(gateway, "s1")
        await approve(gateway, **session)
        proxy = gateway.gateway.proxy
        proxy._held_answers.delivered = DeliveredAnswers()
        proxy._repeats = Repeats(gateway.gateway.service, proxy._audit, proxy._held_answers.delivered)
        assert texts(await repeat(gateway, **session)) == REPEATED_TEXTS


async def test_a_client_without_sessions_is_identified_by_its_agent():
    async with running() as gateway:
        params = {"name": "create_note", "arguments": {}}
        async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.ask("tools/call", params))
            [held] = await gateway.held()
            await gateway.review(held)
            await agent
        again = await gateway.ask("tools/call", params)
        assert [one["text"] for one in again.result["content"]] == REPEATED_TEXTS


async def test_other_members_of_an_outcome_are_repeated_unchanged():
    async def detailed(_, frame):
        more = {"structuredContent": {"amount": 1.0, "big": 12345678901234567890}, "_meta": {"trace": "t1"}}
        return result(frame, {"content": [{"type": "image", "data": "", "mimeType": "x/y"}], **more})

    async with running(recorder=RecordingServer(on_call=detailed)) as gateway:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            await gateway.review(held)
            first = (await agent)["result"]
        again = (await repeat(gateway))["result"]
        assert again["structuredContent"] == first["structuredContent"]
        assert again["content"][:-1] == first["content"]
        assert again["_meta"].keys() == {"trace", "okayed/approval"}


async def test_a_repeated_server_error_is_marked_in_its_data():
    async def failing(_, frame):
        return error(frame, -32603, "It broke.")

    async with running(recorder=RecordingServer(on_call=failing)) as gateway:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            await gateway.review(held)
            assert (await agent)["error"] == {"code": -32603, "message": "It broke."}
        again = (await repeat(gateway))["error"]
        assert again["message"] == "It broke."
        assert again["data"]["okayed/approval"]["repeated"] is True
        assert len(gateway.ran()) == 1


async def test_an_answer_is_collected_when_its_last_byte_is_written_not_before():
    async with running() as gateway:
        begin = gateway.gateway.proxy.begin
        replies = []

        async def lost(given):
            replies.append(await decide(await begin(given)))
            raise ConnectionResetError

        gateway.gateway.proxy.begin = lost
        agent = asyncio.ensure_future(gateway.call("create_note"))
        [held] = await gateway.held()
        await gateway.review(held)
        await asyncio.wait([agent])
        assert agent.exception() is not None
        gateway.gateway.proxy.begin = begin
        [reply] = replies
        assert b"ran create_note" in await read_body(reply)
        stored = await gateway.gateway.service.get(held.id)
        assert (stored.state, stored.collected) == (State.COMPLETED, False)
        assert texts(await repeat(gateway)) == ["ran create_note"]
        assert (await gateway.gateway.service.get(held.id)).collected
        assert len(gateway.ran()) == 1
