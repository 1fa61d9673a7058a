"""A config change while calls wait: which calls stay, and which become void."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from approvals.errors import NotAnApprover
from approvals.model import Decision, State
from gateway.config.options import ToolOptions
from gateway.tools.classify.severity import Severity
from gateway.upstreams.replaceable import ReplaceableUpstream
from gateways import TASKS, running, text
from hang import HANG
from recording_server import RecordingServer

READS = "default: require_approval\nmatrix: [{category: [Read], action: allow}]"


async def adopt(gateway, **options):
    """Change the options of the server in the config."""
    config = gateway.gateway.config
    servers = {"notes": replace(config.servers["notes"], **options)}
    await gateway.gateway.adopt(replace(config, servers=servers))


@asynccontextmanager
async def waiting(gateway):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        yield agent, held


async def test_calls_for_a_server_that_changed_become_void():
    async with running(READS) as gateway, RecordingServer() as other, waiting(gateway) as (agent, held):
        await adopt(gateway, url=other.url)
        assert "This server's address or credentials changed while the call waited" in text(await agent)
        assert (await gateway.gateway.service.get(held.id)).state is State.VOIDED
        assert gateway.ran() == other.calls == []


async def test_a_server_that_changed_is_asked_for_its_tools():
    tools = [{"name": "get_note", "description": "Delete a note.", "inputSchema": {"type": "object"}}]
    async with running(READS, more="pin: quarantine") as gateway, RecordingServer(tools=tools) as other:
        assert text(await gateway.call("get_note")) == "ran get_note"
        await adopt(gateway, url=other.url)
        assert "definition of this tool changed" in text(await gateway.call("get_note"))
        assert other.calls == []


async def test_a_late_tool_list_of_a_replaced_server_is_ignored():
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(request, frame):
        asked.set()
        await answer.wait()

    async with (
        running(READS, recorder=RecordingServer(on_list=slow)) as gateway,
        RecordingServer(tools=[]) as other,
    ):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(gateway.gateway.catalogue.refresh_stale())
            await asked.wait()
            await adopt(gateway, url=other.url)
            answer.set()
        assert gateway.gateway.catalogue.listed_tools("notes") == []
        await gateway.gateway.catalogue.refresh_stale()
        assert [one.frame["method"] for one in other.received][-1] == "tools/list"


async def test_calls_keep_waiting_when_only_the_classification_of_a_tool_changes():
    async with running(READS) as gateway, waiting(gateway) as (agent, held):
        upstream = gateway.gateway.proxy.settings.upstreams["notes"]
        await adopt(gateway, tools={"get_note": ToolOptions(severity="critical")})
        assert gateway.gateway.proxy.settings.upstreams["notes"] is upstream
        tool = gateway.gateway.catalogue.listed_tool("notes", "get_note")
        assert tool.classification.severity is Severity.CRITICAL
        await gateway.review(held)
        assert text(await agent) == "ran create_note"


async def test_calls_keep_waiting_when_only_answer_within_changes():
    async with running(READS) as gateway, waiting(gateway) as (agent, held):
        upstream = gateway.gateway.proxy.settings.upstreams["notes"]
        await adopt(gateway, answer_within="5m")
        assert gateway.gateway.proxy.settings.upstreams["notes"] is upstream
        assert gateway.gateway.proxy.settings.holds.answer_within == {"notes": 300.0}
        await gateway.review(held)
        assert text(await agent) == "ran create_note"


async def test_a_task_of_a_removed_server_becomes_void():
    async with running(READS) as gateway:
        params = {"name": "create_note", "arguments": {}}
        begun = await gateway.ask("tools/call", params, declares=TASKS)
        await gateway.gateway.adopt(replace(gateway.gateway.config, servers={}))
        held = await gateway.gateway.service.get(begun.result["taskId"])
        assert (held.state, held.note) == (
            State.VOIDED,
            "the server is no longer in the config",
        )


OWNED = """
agents: [{name: one, owner: alice@example.com, token_sha256: 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed}]
approvals: {requester_may_approve: true}
"""


@pytest.mark.parametrize(("who", "runs"), [("alice", 0), ("bob", 1)])
async def test_an_owners_approval_is_invalid_once_the_config_forbids_it(who, runs):
    headers = {"Authorization": "Bearer one"}
    async with running(more=OWNED) as gateway, asyncio.TaskGroup() as tasks:
        config = gateway.gateway.config
        people = [replace(one, email=f"{one.name}@example.com") for one in config.approvers]
        await gateway.gateway.adopt(config := replace(config, approvers=people))
        agent = tasks.create_task(gateway.call("create_note", headers=headers))
        [held] = await gateway.held()
        agent.cancel()
        await asyncio.gather(agent, return_exceptions=True)
        await gateway.review(held, who=who)
        strict = replace(config.approvals, requester_may_approve=False)
        await gateway.gateway.adopt(replace(config, approvals=strict))
        answer = text(await gateway.call("create_note", headers=headers))
        assert len(gateway.ran()) == runs
        assert ("the policy now requires other or more approvals" in answer) is (runs == 0)


async def test_a_server_with_a_rotated_token_is_asked_for_its_tools_again():
    async with RecordingServer() as server:
        options = f"url: '{server.url}', headers: {{Authorization: Bearer old}}"
        async with running(READS, server_options=options) as gateway:
            await gateway.call("get_note")
            await adopt(gateway, headers={"Authorization": "Bearer new"})
            await gateway.call("get_note")
        listings = [one for one in server.received if one.frame.get("method") == "tools/list"]
        assert [one.headers["authorization"] for one in listings] == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize(
    "options",
    [{"answer_within": "1m"}, {"connections": 2}, {"tools": {"get_note": ToolOptions(risk="High")}}],
)
async def test_options_of_another_part_leave_the_connection_to_the_server(options):
    async with running(READS) as gateway:
        connection = gateway.gateway.proxy.settings.upstreams["notes"].inner
        await adopt(gateway, **options)
        assert gateway.gateway.proxy.settings.upstreams["notes"].inner is connection


async def test_a_changed_limit_on_open_calls_is_in_force_at_once():
    async with running(READS) as gateway, waiting(gateway) as (agent, held):
        config = gateway.gateway.config
        await gateway.gateway.adopt(replace(config, limits=replace(config.limits, open_per_agent=1)))
        async with asyncio.timeout(HANG):
            answer = text(await gateway.call("create_note", {"a": 2}))
        assert "Too many of your calls already wait" in answer
        await gateway.review(held)
        await agent


async def test_a_call_that_the_new_policy_denies_does_not_accept_its_changed_tool():
    async with running(READS) as gateway:
        await gateway.call("get_note")
        gateway.recorder.tools[0]["description"] = "Get a note, or all of them."
        gateway.gateway.catalogue.mark_stale("notes")
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("get_note"))
            [held] = await gateway.held()
            config = gateway.gateway.config
            await gateway.gateway.adopt(
                replace(config, policy=replace(config.policy, default="deny", matrix=[]))
            )
            await gateway.review(held)
            assert text(await agent).startswith("No longer valid: ")
        [pin] = [one for one in await gateway.gateway.store.pins() if one.tool == "get_note"]
        assert b"or all of them" not in pin.definition
        assert gateway.gateway.catalogue.listed_tool("notes", "get_note").accepted
        assert len(gateway.ran()) == 1


async def test_renewing_a_connection_returns_the_old_one():
    before, after = RecordingServer(), RecordingServer()
    renewed = ReplaceableUpstream(before)
    assert renewed.renew(after) is before
    assert renewed.inner is after


async def test_an_approver_removed_from_the_config_cannot_decide():
    async with running(READS) as gateway, waiting(gateway) as (agent, held):
        config = gateway.gateway.config
        alice = gateway.gateway.service.directory.by_name("alice")
        await gateway.gateway.adopt(replace(config, approvers=config.approvers[1:]))
        with pytest.raises(NotAnApprover):
            await gateway.gateway.service.review(
                held.id, alice, Decision.APPROVE, via="cli", digest=held.digest
            )
        agent.cancel()
