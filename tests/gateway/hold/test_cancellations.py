"""Cancelled and superseded requests stop waiting; others keep waiting."""

import asyncio
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.model import CallId
from gateway.hold.cancellations import Cancellations, PendingWait, RequestKey
from gateway.hold.event_buffer import EventBuffer
from gateways import Clock
from replacing import replace
from rows import each_row

NAMED = RequestKey(agent="ci-bot", server="iam", session="s1", id=1)
CALL = CallId("hold_1")


@contextmanager
def tracked(waits, key, wait):
    """Track a wait while the context is open; a wait that is left by an error was not answered."""
    waits.add(key, wait)
    answered = False
    try:
        yield wait
        answered = True
    finally:
        waits.remove(key, wait, answered=answered)


def test_a_cancelled_request_ends_its_wait():
    waits = Cancellations(Clock())
    with tracked(waits, NAMED, PendingWait(call_id=CALL)) as wait:
        assert not wait.cancelled
        assert waits.cancel(NAMED) == (CALL,)
        assert wait.cancelled


@given(
    st.builds(RequestKey, agent=st.text(), server=st.text(), session=st.text(), id=st.integers() | st.text())
)
def test_every_key_survives_a_signal_and_is_ascii(key):
    assert RequestKey.decode(key.encode()) == key
    assert type(RequestKey.decode(key.encode()).id) is type(key.id)
    assert key.encode().isascii()


def test_a_header_with_invalid_utf_8_survives_a_signal():
    key = replace(NAMED, session="s\udcff")
    assert RequestKey.decode(key.encode()) == key


@each_row("subject", ["", "no json", "[]", '{"agent": "a"}', NAMED.encode().replace("1}", "true}")])
def test_another_subject_is_not_a_key(subject):
    with pytest.raises(ValueError):
        RequestKey.decode(subject)


@each_row("other", [{"agent": "x"}, {"server": "x"}, {"session": "x"}, {"id": "1"}])
def test_a_cancellation_by_another_client_ends_nothing(other):
    waits = Cancellations(Clock())
    with tracked(waits, NAMED, PendingWait(call_id=CALL)) as wait:
        assert waits.cancel(replace(NAMED, **other)) == ()
        assert not wait.cancelled


def test_two_requests_with_the_same_key_both_end():
    waits = Cancellations(Clock())
    with (
        tracked(waits, NAMED, PendingWait(call_id=CALL)) as first,
        tracked(waits, NAMED, PendingWait(call_id=CallId("hold_2"))) as second,
    ):
        assert waits.cancel(NAMED) == (CALL, "hold_2")
        assert first.cancelled
        assert second.cancelled


def test_ended_waits_are_forgotten():
    waits = Cancellations(Clock())
    with tracked(waits, NAMED, PendingWait(call_id=CALL)):
        pass
    assert waits.cancel(NAMED) == ()
    assert waits._waits == waits._by_call == {}


def wait(since, client="mcp", call_id=CALL):
    return PendingWait(call_id=call_id, client=client, since=since)


def test_a_repeat_after_two_seconds_supersedes_the_older_request():
    waits = Cancellations(Clock())
    with tracked(waits, NAMED, wait(10.0)) as older:
        assert waits.supersede(CALL, "mcp", 11.9) is None
        assert not older.is_over
        assert waits.supersede(CALL, "mcp", 12.0) == 2.0
        assert older.is_over
        assert waits.open_waits(CALL, "mcp") == ()
        assert waits.supersede(CALL, "mcp", 15.0) is None


def test_the_newest_superseded_request_measures_how_long_a_client_waits():
    waits = Cancellations(Clock())
    with (
        tracked(waits, NAMED, wait(10.0)) as first,
        tracked(waits, NAMED, wait(12.0)) as second,
        tracked(waits, NAMED, wait(16.0)) as third,
    ):
        assert waits.supersede(CALL, "mcp", 17.0) == 5.0
        assert [one.superseded for one in (first, second, third)] == [True, True, False]


@pytest.mark.parametrize("other", [wait(0.0, client="cursor"), wait(0.0, call_id=CallId("hold_2"))])
def test_requests_of_other_clients_or_calls_are_not_superseded(other):
    waits = Cancellations(Clock())
    with tracked(waits, NAMED, other):
        assert waits.supersede(CALL, "mcp", 60.0) is None
        assert not other.is_over


def test_a_superseded_request_gets_no_more_events():
    waits = Cancellations(Clock())
    with tracked(waits, NAMED, wait(0.0)) as older:
        older.events = EventBuffer()
        older.events.put(b"progress")
        waits.supersede(CALL, "mcp", 5.0)
        assert [asyncio.run(older.events.get()) for _ in range(2)] == [b"progress", None]


@pytest.mark.parametrize(("lasted", "known"), [(1.9, None), (2.0, 2.0), (5.0, 5.0)])
def test_a_cancelled_request_measures_how_long_a_client_waits(lasted, known):
    clock = Clock()
    waits = Cancellations(clock)
    with tracked(waits, NAMED, wait(clock.now)):
        clock.now += lasted
        waits.cancel(NAMED)
    clock.now += 60
    assert waits.supersede(CALL, "other", clock.now) is None
    assert waits.supersede(CALL, "mcp", clock.now) == known
    assert waits.supersede(CALL, "mcp", clock.now) is None


def test_a_broken_stream_that_was_resumed_was_not_abandoned():
    clock = Clock()
    waits = Cancellations(clock)
    with pytest.raises(GeneratorExit), tracked(waits, NAMED, wait(clock.now)):
        clock.now += 600
        raise GeneratorExit
    with tracked(waits, NAMED, wait(clock.now)):
        pass
    assert waits.supersede(CALL, "mcp", clock.now) is None


def test_ended_requests_are_remembered_up_to_a_limit(monkeypatch):
    monkeypatch.setattr("gateway.hold.cancellations.MAX_ENDED", 1)
    clock = Clock()
    waits = Cancellations(clock)
    for call_id in ("hold_1", "hold_2"):
        with tracked(waits, NAMED, wait(clock.now, call_id=CallId(call_id))):
            clock.now += 5
            waits.cancel(NAMED)
    assert waits.supersede(CallId("hold_1"), "mcp", clock.now) is None
    assert waits.supersede(CallId("hold_2"), "mcp", clock.now) == 5.0
