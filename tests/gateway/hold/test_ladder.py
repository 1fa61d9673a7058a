"""The ladder, rung by rung."""

from dataclasses import replace

import pytest

from approvals.lifecycle import SETTLED
from approvals.model import State
from gateway.call.hold_settings import ClientRule
from gateway.hold import ladder
from gateway.hold.ladder import Rung, Step
from holds import held
from rows import each_row

NOW = 1000.0


def in_state(state):
    return replace(held(NOW), state=state)


@each_row("state", sorted(SETTLED))
def test_what_is_settled_is_told(state):
    assert ladder.step(in_state(state), NOW, NOW + 50) == Step(Rung.TELL)
    assert ladder.step(in_state(state), NOW + 99, NOW + 50) == Step(Rung.TELL)


def test_what_is_approved_runs_even_at_the_end_of_the_patience():
    call = in_state(State.APPROVED)
    assert ladder.step(call, NOW + 99, NOW + 50) == Step(Rung.RUN)
    assert ladder.step(call, NOW + 45, NOW + 50, tried=True) == Step(Rung.RUN, 5.0)


def test_what_could_not_be_claimed_is_tried_until_the_end_of_the_patience():
    call = in_state(State.APPROVED)
    assert ladder.step(call, NOW + 50, NOW + 50, tried=True) == Step(Rung.LATER)
    assert ladder.step(call, NOW + 50, NOW + 50, tried=True, rounds_left=1) == Step(Rung.ROUND)


@pytest.mark.parametrize("state", [State.PENDING, State.APPROVED, State.FORWARDING])
def test_for_a_client_that_cancelled_nothing_waits_or_runs(state):
    assert ladder.step(in_state(state), NOW, NOW + 50, cancelled=True) == Step(Rung.LATER)


@pytest.mark.parametrize("state", [State.PENDING, State.FORWARDING])
def test_what_is_undecided_waits_a_beat_at_a_time_and_then_is_told_to_come_back(state):
    call = in_state(state)
    assert ladder.step(call, NOW, NOW + 50) == Step(Rung.WAIT, 15.0)
    assert ladder.step(call, NOW + 45, NOW + 50) == Step(Rung.WAIT, 5.0)
    assert ladder.step(call, NOW + 50, NOW + 50) == Step(Rung.LATER)


@each_row(
    ("client", "hold_for", "known", "seconds"),
    [
        ("", None, {}, 50.0),
        ("some-agent", None, {}, 50.0),
        ("claude-code", None, {}, 86400.0),
        ("Visual Studio Code - Insiders", None, {}, 86400.0),
        ("mcp", None, {}, 14400.0),
        ("mcpx", None, {}, 50.0),
        ("Cursor-vscode", None, {}, 280.0),
        ("claude-ai", None, {}, 50.0),
        ("opencode", None, {}, 580.0),
        ("qwen-cli-mcp-client-notes", None, {}, 580.0),
        ("gemini-cli-mcp-client", None, {}, 580.0),
        ("mcp (via mcp-remote 0.15.1)", None, {}, 14400.0),
        ("Cursor (via mcp-remote 0.15.1)", None, {}, 280.0),
        ("someone (via mcp-remote 0.15.1)", None, {}, 50.0),
        ("mcp (via mcp-remote 0.15.1)", None, {"*(via mcp-remote*": ClientRule(wait=9.0)}, 9.0),
        ("claude-code", 3.0, {}, 3.0),
        ("claude-code", None, {"claude-*": ClientRule(wait=60.0)}, 60.0),
        ("My-Agent", 3.0, {"my-agent": ClientRule(wait=7.0)}, 7.0),
    ],
)
def test_patience_is_the_configs_word_for_this_client_or_for_all_or_what_is_known_of_it(
    client, hold_for, known, seconds
):
    assert ladder.client(client, hold_for, known).wait == seconds


@each_row(
    ("hold_for", "rule", "wait", "learns", "as_result"),
    [
        (None, ClientRule(), 14400.0, True, False),
        (None, ClientRule(as_result=True), 14400.0, True, True),
        (None, ClientRule(wait=30.0, as_result=True), 30.0, False, True),
        (60.0, ClientRule(as_result=True), 60.0, False, True),
        (60.0, ClientRule(wait=30.0), 30.0, False, False),
    ],
)
def test_a_time_that_the_config_sets_is_kept_and_any_other_may_be_learned(
    hold_for, rule, wait, learns, as_result
):
    known = ladder.client("mcp", hold_for, {"mcp": rule})
    assert known == ladder.ClientHold(wait=wait, learns=learns, as_result=as_result)


def test_a_sign_of_life_is_a_comment_or_growing_progress():
    call = held(NOW)
    assert ladder.sign_of_life(call, 0, None) == b": waiting for approval\n\n"
    first, second = (ladder.sign_of_life(call, beat, "t") for beat in (1, 2))
    assert b'"progressToken":"t","progress":1e-06' in first.replace(b"1e-6", b"1e-06")
    assert first != second
    assert call.id.encode() in first
