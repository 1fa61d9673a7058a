"""Answers that may have been lost: those that a session was sent since its last request."""

from approvals.model import CallId
from gateway.call.delivered import DeliveredAnswers, SessionKey

ONE, TWO = SessionKey("ci-bot", "iam", "s1"), SessionKey("ci-bot", "iam", "s2")
A, B = CallId("hold_a"), CallId("hold_b")


def test_delivered_answers_are_kept_until_the_sessions_next_request():
    given = DeliveredAnswers()
    given.record_request(ONE)
    given.record_request(TWO)
    given.record(ONE, A)
    given.record(ONE, B)
    given.record_request(TWO)
    assert (given.is_last(ONE, A), given.is_last(ONE, B), given.is_last(TWO, A)) == (True, True, False)
    given.record_request(ONE)
    assert (given.is_last(ONE, A), given.is_last(ONE, B)) == (False, False)


def test_in_an_unknown_session_every_answer_may_be_the_last():
    given = DeliveredAnswers()
    assert given.is_last(ONE, A)
    assert not given.has(ONE, A)
    given.record_request(ONE)
    assert not given.is_last(ONE, A)


def test_a_forgotten_session_is_not_mistaken_for_a_silent_one():
    """Its next call may be intended, so it needs an approval."""
    given = DeliveredAnswers(most=1)
    given.record_request(ONE)
    given.record_request(TWO)
    assert (given.is_last(ONE, A), given.is_last(TWO, A)) == (False, False)
    given.record(TWO, A)
    assert given.is_last(TWO, A)


def test_another_session_finds_the_receiver_of_an_answer_while_that_is_stored():
    given = DeliveredAnswers()
    with given.storing(ONE, A):
        assert (given.find_receiver(TWO, A), given.find_receiver(TWO, B)) == (ONE, None)
    assert given.find_receiver(TWO, A) is None
    given.record(TWO, A)
    assert given.find_receiver(TWO, A) == TWO
