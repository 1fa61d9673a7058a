"""Sessions belong to the agent that opened them, even after a restart."""

import asyncio

import pytest

from approvals.store.memory.store import MemoryStore
from gateway.auth.agents import Agent
from gateway.call import sessions
from gateway.call.sessions import Sessions
from gateway.errors import UnknownSessionError
from gateway.upstreams.reply import Reply

ALICE, BOB = Agent(name="alice"), Agent(name="bob")
OPENED = Reply(status=200, headers={"Mcp-Session-Id": "s1"})
SENT = {"mcp-session-id": "s1"}


async def test_only_the_agent_that_opened_a_session_may_use_it_at_this_server():
    found = Sessions(MemoryStore(), lambda: 1.0)
    await found.open(ALICE, "iam", OPENED, {"clientInfo": {"name": "claude-code"}})
    assert (await found.find(ALICE, "iam", "s1")).client == "claude-code"
    for agent, server in ((BOB, "iam"), (ALICE, "github")):
        with pytest.raises(UnknownSessionError):
            await found.find(agent, server, "s1")


async def test_an_unknown_or_closed_session_is_not_found():
    found = Sessions(MemoryStore(), lambda: 1.0)
    with pytest.raises(UnknownSessionError):
        await found.find(ALICE, "iam", "s1")
    await found.open(ALICE, "iam", OPENED, {})
    found.close("iam", SENT)
    with pytest.raises(UnknownSessionError):
        await found.find(ALICE, "iam", "s1")


async def test_without_a_session_id_there_is_no_session():
    found = Sessions(MemoryStore(), lambda: 1.0)
    await found.open(ALICE, "iam", Reply(status=200), {})
    assert await found.find(ALICE, "iam", None) is None


@pytest.mark.parametrize("info", [None, 5, {}, {"name": 7}])
async def test_an_initialize_with_odd_members_is_accepted(info):
    found = Sessions(MemoryStore(), lambda: 1.0)
    await found.open(ALICE, "iam", OPENED, {"clientInfo": info})
    assert (await found.find(ALICE, "iam", "s1")).client == ""


async def test_the_least_recently_used_session_is_forgotten_first():
    found = Sessions(MemoryStore(), lambda: 1.0)
    for n in range(sessions.MAX_SESSIONS + 1):
        await found.open(ALICE, "iam", Reply(status=200, headers={"Mcp-Session-Id": str(n)}), {})
        await found.find(ALICE, "iam", "0") if n < 5 else None
    assert ("iam", "0") in found._sessions
    assert ("iam", "1") not in found._sessions
    assert await found.find(ALICE, "iam", "1"), "the store remembers it"


async def test_after_a_restart_a_session_is_known_to_its_agent_only():
    store = MemoryStore()
    said = {"clientInfo": {"name": "claude-code"}, "capabilities": {"roots": {}}}
    await Sessions(store, lambda: 1.0).open(ALICE, "iam", OPENED, said)
    later = Sessions(store, lambda: 2.0)
    for agent, server in ((BOB, "iam"), (ALICE, "github")):
        with pytest.raises(UnknownSessionError):
            await later.find(agent, server, "s1")
    first, second = await asyncio.gather(later.find(ALICE, "iam", "s1"), later.find(ALICE, "iam", "s1"))
    assert first is second
    assert (first.client, first.capabilities) == ("claude-code", {"roots": {}})
    later.close("iam", SENT)
    with pytest.raises(UnknownSessionError):
        await Sessions(store, lambda: 3.0).find(ALICE, "iam", "s1")
