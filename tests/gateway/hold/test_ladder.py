"""The hold ladder, rung by rung."""

import pytest

from approval_fixtures import held
from approvals.lifecycle import SETTLED
from approvals.model import State
from gateway.hold import ladder
from gateway.hold.ladder import Rung, Step
from replacing import replace
from rows import each_row

NOW = 1000.0


def in_state(state):
    return replace(held(NOW), state=state)


@each_row("state", sorted(SETTLED))
def test_a_settled_call_is_answered(state):
    assert ladder.next_step(in_state(state), NOW, NOW + 50) == Step(Rung.ANSWER)
    assert ladder.next_step(in_state(state), NOW + 99, NOW + 50) == Step(Rung.ANSWER)


def test_an_approved_call_runs_even_at_the_end_of_the_wait():
    call = in_state(State.APPROVED)
    assert ladder.next_step(call, NOW + 99, NOW + 50) == Step(Rung.RUN)
    assert ladder.next_step(call, NOW + 45, NOW + 50, claim_failed=True) == Step(Rung.RUN, 5.0)


def test_a_failed_claim_is_retried_until_the_end_of_the_wait():
    call = in_state(State.APPROVED)
    assert ladder.next_step(call, NOW + 50, NOW + 50, claim_failed=True) == Step(Rung.LATER)
    assert ladder.next_step(call, NOW + 50, NOW + 50, claim_failed=True, rounds_left=1) == Step(Rung.ROUND)


@pytest.mark.parametrize("state", [State.PENDING, State.APPROVED, State.FORWARDING])
def test_nothing_waits_or_runs_for_a_client_that_cancelled(state):
    assert ladder.next_step(in_state(state), NOW, NOW + 50, cancelled=True) == Step(Rung.LATER)


@pytest.mark.parametrize("state", [State.PENDING, State.FORWARDING])
def test_an_undecided_call_waits_a_beat_at_a_time_then_gets_a_round_or_waiting(state):
    call = in_state(state)
    assert ladder.next_step(call, NOW, NOW + 50) == Step(Rung.WAIT, 15.0)
    assert ladder.next_step(call, NOW + 45, NOW + 50) == Step(Rung.WAIT, 5.0)
    assert ladder.next_step(call, NOW + 50, NOW + 50) == Step(Rung.LATER)


def test_a_sign_of_life_is_a_comment_or_growing_progress():
    call = held(NOW)
    assert ladder.sign_of_life(call, 0, None) == b": waiting for approval\n\n"
    first, second = (ladder.sign_of_life(call, beat, "t") for beat in (1, 2))
    assert b'"progressToken":"t","progress":1e-06' in first.replace(b"1e-6", b"1e-06")
    assert first != second
    assert call.id.encode() in first
