"""Sessions belong to the agent that opened them."""

import pytest

from gateway import sessions
from gateway.agents import Agent
from gateway.errors import UnknownSessionError
from gateway.sessions import Sessions
from gateway.upstreams import Reply

ALICE, BOB = Agent(name="alice"), Agent(name="bob")
OPENED = Reply(status=200, headers={"Mcp-Session-Id": "s1"})
SENT = {"mcp-session-id": "s1"}


def test_the_agent_that_opened_a_session_may_use_it_here_and_nobody_else():
    found = Sessions()
    found.opened(ALICE, "iam", OPENED, {"clientInfo": {"name": "claude-code"}})
    assert found.check(ALICE, "iam", SENT).client == "claude-code"
    for agent, server in ((BOB, "iam"), (ALICE, "github")):
        with pytest.raises(UnknownSessionError):
            found.check(agent, server, SENT)


def test_an_unknown_or_closed_session_is_not_found():
    found = Sessions()
    with pytest.raises(UnknownSessionError):
        found.check(ALICE, "iam", SENT)
    found.opened(ALICE, "iam", OPENED, {})
    found.closed("iam", SENT)
    with pytest.raises(UnknownSessionError):
        found.check(ALICE, "iam", SENT)


def test_without_a_session_there_is_nothing_to_check():
    found = Sessions()
    found.opened(ALICE, "iam", Reply(status=200), {})
    assert found.check(ALICE, "iam", {}) is None
    assert found.check(ALICE, "iam", {**SENT, "mcp-protocol-version": "2026-07-28"}) is None


@pytest.mark.parametrize("info", [None, 5, {}, {"name": 7}])
def test_what_a_client_says_of_itself_may_be_anything(info):
    found = Sessions()
    found.opened(ALICE, "iam", OPENED, {"clientInfo": info})
    assert found.check(ALICE, "iam", SENT).client == ""


def test_the_session_unused_the_longest_is_forgotten_first():
    found = Sessions()
    for n in range(sessions.MAX_SESSIONS + 1):
        found.opened(ALICE, "iam", Reply(status=200, headers={"Mcp-Session-Id": str(n)}), {})
        found.check(ALICE, "iam", {"mcp-session-id": "0"}) if n < 5 else None
    with pytest.raises(UnknownSessionError):
        found.check(ALICE, "iam", {"mcp-session-id": "1"})
    assert found.check(ALICE, "iam", {"mcp-session-id": "0"})
