"""Which answers may have been lost: those that a session was given since its last request."""

from approvals.model import CallId
from gateway.call.delivered import DeliveredAnswers, SessionKey

ONE, TWO = SessionKey("ci-bot", "iam", "s1"), SessionKey("ci-bot", "iam", "s2")
A, B = CallId("hold_a"), CallId("hold_b")


def test_answers_count_until_the_next_request_of_their_session():
    given = DeliveredAnswers()
    given.record_request(ONE)
    given.record_request(TWO)
    given.record(ONE, A)
    given.record(ONE, B)
    given.record_request(TWO)
    assert (given.is_last(ONE, A), given.is_last(ONE, B), given.is_last(TWO, A)) == (True, True, False)
    given.record_request(ONE)
    assert (given.is_last(ONE, A), given.is_last(ONE, B)) == (False, False)


def test_of_a_session_that_nothing_is_known_of_every_answer_may_be_the_last():
    given = DeliveredAnswers()
    assert given.is_last(ONE, A)
    assert not given.has(ONE, A)
    given.record_request(ONE)
    assert not given.is_last(ONE, A)


def test_a_session_that_many_others_crowded_out_is_not_taken_for_one_that_asked_for_nothing_since():
    """Its next call may be an intended second one, so people are asked."""
    given = DeliveredAnswers(most=1)
    given.record_request(ONE)
    given.record_request(TWO)
    assert (given.is_last(ONE, A), given.is_last(TWO, A)) == (False, False)
    given.record(TWO, A)
    assert given.is_last(TWO, A)
