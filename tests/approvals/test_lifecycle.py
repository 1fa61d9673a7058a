"""Every transition of the lifecycle."""

from itertools import product

import pytest

from approval_fixtures import held
from approvals import lifecycle
from approvals.errors import AlreadyDecided, IllegalTransition
from approvals.lifecycle import SETTLED, TIMED, TRANSITIONS
from approvals.model import Decision, Outcome, Review, State
from replacing import replace
from rows import each_row

NOW = 1000.0
#: The allowed transitions, written a second time by hand.
ALLOWED = {
    ("pending", "approved"), ("pending", "denied"), ("pending", "expired"), ("pending", "cancelled"), ("pending", "voided"),
    ("approved", "forwarding"), ("approved", "expired"), ("approved", "cancelled"), ("approved", "voided"),
    ("forwarding", "completed"), ("forwarding", "upstream_error"), ("forwarding", "not_sent"), ("forwarding", "in_doubt"),
    ("in_doubt", "resolved"), ("in_doubt", "completed"), ("in_doubt", "upstream_error"),
    ("in_doubt", "not_sent"),
}  # fmt: skip


def in_state(state, **changes):
    return replace(held(NOW), state=state, **changes)


def said(answer=Decision.APPROVE, who="alice", at=NOW + 1, reason="", via="inbox"):
    return Review(approver=who, answer=answer, at=at, reason=reason, via=via)


@each_row(("before", "after"), product(State, State))
def test_every_step_is_allowed_or_refused_as_the_table_says(before, after):
    call = in_state(before)
    if (before, after) not in ALLOWED:
        with pytest.raises(IllegalTransition, match=f"a call that is {before} cannot become {after}"):
            lifecycle.advance(call, after, NOW)
        return
    moved = lifecycle.advance(call, after, NOW + 5)
    assert (moved.state, moved.version) == (after, call.version + 1)
    assert moved.settled_at == (NOW + 5 if after in SETTLED else None)
    assert moved.decided_at == (NOW + 5 if before is State.PENDING else None)


def test_no_settled_state_has_a_transition_except_in_doubt():
    assert {State.IN_DOUBT, *(state for state in State if not TRANSITIONS[state])} == SETTLED
    assert {State.PENDING, State.APPROVED} == TIMED


@each_row(("state", "answer"), product(set(State) - {State.PENDING}, Decision))
def test_a_review_of_a_call_that_is_not_pending_is_too_late(state, answer):
    with pytest.raises(AlreadyDecided, match=f"already {state}"):
        lifecycle.review(in_state(state), said(answer))


@pytest.mark.parametrize(
    ("at", "in_time"), [(NOW + 899.999, True), (NOW + 900, False), (NOW + 900.001, False)]
)
def test_a_review_is_in_time_before_the_deadline_only(at, in_time):
    if in_time:
        assert lifecycle.review(held(NOW), said(at=at)).state is State.APPROVED
    else:
        with pytest.raises(AlreadyDecided, match="expired"):
            lifecycle.review(held(NOW), said(at=at))


def test_an_approval_sets_a_new_deadline():
    approved = lifecycle.review(held(NOW), said(at=NOW + 100))
    assert (approved.state, approved.expires_at, approved.decided_at) == (
        State.APPROVED,
        NOW + 700,
        NOW + 100,
    )
    assert approved.reviews == (said(at=NOW + 100),)


def test_one_person_has_one_vote_across_channels():
    call = held(NOW, needed=2)
    first = lifecycle.review(call, said(via="slack"))
    assert (first.state, first.approvals, first.version) == (State.PENDING, 1, 2)
    assert lifecycle.review(first, said(via="inbox")) is first
    assert lifecycle.review(first, said(who="bob")).state is State.APPROVED


def test_one_denial_ends_a_call_despite_earlier_approvals():
    first = lifecycle.review(held(NOW, needed=3), said())
    denied = lifecycle.review(first, said(Decision.DENY, who="alice", reason="on second thought"))
    assert denied.state is State.DENIED
    assert denied.denial.reason == "on second thought"
    assert denied.expires_at == first.expires_at


@each_row(("state", "at"), product(State, (NOW + 899.999, NOW + 900, NOW + 5000)))
def test_only_a_waiting_call_expires_and_not_before_its_deadline(state, at):
    expired = lifecycle.expire(in_state(state), at)
    assert (expired is not None) == (at >= NOW + 900 and state in TIMED)
    if expired:
        assert (expired.state, expired.settled_at) == (State.EXPIRED, at)


@pytest.mark.parametrize(("is_error", "state"), [(False, State.COMPLETED), (True, State.UPSTREAM_ERROR)])
def test_an_outcome_ends_a_run(is_error, state):
    outcome = Outcome(is_error=is_error, body=b"{}")
    done = lifecycle.finish(in_state(State.FORWARDING, runner="a"), outcome, "a", NOW)
    assert (done.state, done.outcome) == (state, outcome)


def test_a_late_answer_ends_a_doubt_and_its_note():
    doubt = in_state(
        State.IN_DOUBT, note="The server did not answer within 2 min.", settled_at=NOW, runner="a"
    )
    done = lifecycle.finish(doubt, Outcome(is_error=False, body=b"{}"), "a", NOW + 9)
    assert (done.state, done.note, done.settled_at) == (State.COMPLETED, "", NOW + 9)


def test_a_claim_names_its_runner():
    claimed = lifecycle.claim(in_state(State.APPROVED), "a", NOW)
    assert (claimed.state, claimed.runner) == (State.FORWARDING, "a")


@pytest.mark.parametrize("state", [State.FORWARDING, State.IN_DOUBT])
def test_only_the_runner_of_a_call_can_finish_it(state):
    with pytest.raises(IllegalTransition, match="only the replica that claimed a call"):
        lifecycle.finish(in_state(state, runner="a"), Outcome(is_error=False, body=b"{}"), "b", NOW)


def test_only_the_run_of_the_lost_replica_is_put_in_doubt():
    running = in_state(State.FORWARDING, runner="a")
    assert lifecycle.doubt(running, "b", NOW, note="lost") is None
    assert lifecycle.doubt(running, "a", NOW, note="lost").state is State.IN_DOUBT
    assert lifecycle.doubt(in_state(State.COMPLETED, runner="a"), "a", NOW, note="lost") is None


@each_row("state", State)
def test_only_a_running_call_can_be_in_doubt(state):
    doubt = lifecycle.try_advance(in_state(state), State.IN_DOUBT, NOW, note="cut")
    assert (doubt is not None) == (state is State.FORWARDING)


@each_row("state", State)
def test_a_repeated_call_joins_a_recent_call_or_one_that_may_have_been_sent(state):
    settled = {"settled_at": NOW} if state in SETTLED else {}
    call = in_state(state, **settled)
    assert lifecycle.can_join(call, NOW + 1) is True
    assert lifecycle.can_join(replace(call, collected=True), NOW + 1) is (
        state not in SETTLED or state is State.IN_DOUBT
    )
    late = lifecycle.can_join(call, NOW + 900)
    assert late is (state in (State.FORWARDING, State.IN_DOUBT))


def test_an_update_changes_only_the_given_fields_and_the_version():
    touched = lifecycle.update(held(NOW), collected=True)
    assert (touched.state, touched.version, touched.collected) == (State.PENDING, 2, True)
