"""A client that cancels a request stops waiting, and nobody else does."""

from dataclasses import replace

import pytest

from approvals.model import CallId
from gateway.ladder.waits import Named, Waits

NAMED = Named(agent="ci-bot", server="iam", session="s1", id=1)
CALL = CallId("hp_1")


def test_a_cancelled_request_ends_its_wait():
    waits = Waits()
    with waits.waiting(NAMED, CALL) as wait:
        assert not wait.cancelled
        assert waits.cancel(NAMED) == (CALL,)
        assert wait.cancelled


@pytest.mark.parametrize("other", [{"agent": "x"}, {"server": "x"}, {"session": "x"}, {"id": "1"}])
def test_a_request_of_another_client_ends_nothing(other):
    waits = Waits()
    with waits.waiting(NAMED, CALL) as wait:
        assert waits.cancel(replace(NAMED, **other)) == ()
        assert not wait.cancelled


def test_two_requests_of_one_name_both_end():
    waits = Waits()
    with waits.waiting(NAMED, CALL) as first, waits.waiting(NAMED, CallId("hp_2")) as second:
        assert waits.cancel(NAMED) == (CALL, "hp_2")
        assert first.cancelled
        assert second.cancelled


def test_what_is_over_is_forgotten():
    waits = Waits()
    with waits.waiting(NAMED, CALL):
        pass
    assert waits.cancel(NAMED) == ()
    assert waits._waits == {}
