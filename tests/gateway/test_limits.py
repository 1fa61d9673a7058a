"""Sliding windows: never more than the limit in any window, whatever the clock does."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.limits import Limit, Per, Scope, Windows, key

ME = Scope(agent="a", session="s", server="iam", tool="t")
TWO = Limit(name="r", max=2, window=60)


def test_the_third_use_of_two_is_over_and_says_when_it_is_not():
    windows = Windows()
    assert windows.take([TWO], ME, 0) is None
    assert windows.take([TWO], ME, 10) is None
    over = windows.take([TWO], ME, 20)
    assert (over.limit, over.retry_after) == (TWO, 40)
    assert windows.take([TWO], ME, 60) is None
    assert windows.take([TWO], ME, 69).retry_after == 1


def test_a_use_that_was_refused_does_not_count():
    windows = Windows()
    for now in (0, 1, 2, 3, 4):
        windows.take([TWO], ME, now)
    assert windows.take([TWO], ME, 60) is None


def test_all_limits_or_none_are_counted():
    one = Limit(name="q", max=1, window=10)
    windows = Windows()
    assert windows.take([TWO, one], ME, 0) is None
    assert windows.take([TWO, one], ME, 1).limit == one
    assert windows.take([TWO], ME, 2) is None  # the refused use took nothing from the other limit


def test_a_limit_of_none_allows_nothing():
    assert Windows().take([Limit(name="n", max=0, window=5)], ME, 0).retry_after == 5


def test_uses_are_counted_apart_by_session_agent_tool_or_together():
    other = {
        Per.SESSION: Scope(agent="a", session="other", server="iam", tool="t"),
        Per.AGENT: Scope(agent="b", session="s", server="iam", tool="t"),
    }
    for per, scope in other.items():
        assert key(Limit(name="r", max=1, window=1, per=per), ME) != key(
            Limit(name="r", max=1, window=1, per=per), scope
        )
    everyone = Limit(name="r", max=1, window=1, per=Per.EVERYONE)
    assert key(everyone, ME) == key(everyone, other[Per.AGENT])
    assert key(everyone, ME) != key(everyone, Scope(agent="a", session="s", server="iam", tool="u"))


def test_uses_before_a_restart_still_count():
    windows = Windows([(key(TWO, ME), 100.0), (key(TWO, ME), 110.0)])
    assert windows.take([TWO], ME, 120).retry_after == 40


def test_a_denying_limit_is_told_before_one_that_asks():
    ask, deny = Limit(name="a", max=0, window=99, ask=True), Limit(name="d", max=0, window=1)
    assert Windows().peek([ask, deny], ME, 0).limit == deny


def test_a_limit_is_said_as_people_say_it():
    assert TWO.text == "2 calls per 60 s"
    assert Limit(name="r", max=1, window=0.5).text == "1 call per 0.5 s"


@given(st.lists(st.floats(-30, 30), max_size=60), st.integers(1, 4), st.floats(1, 50))
def test_no_window_ever_holds_more_than_the_limit(steps, most, window):
    limit = Limit(name="r", max=most, window=window)
    windows, now, latest, taken = Windows(), 1000.0, 0.0, []
    for step in steps:
        now += step
        latest = max(latest, now)
        if windows.take([limit], ME, now) is None:
            taken.append(latest)
    for at in taken:
        assert sum(at - window < other <= at for other in taken) <= most


def test_only_so_many_keys_are_remembered():
    from gateway import limits

    windows = Windows()
    for n in range(limits.MAX_KEYS + 10):
        windows.take([TWO], Scope(agent=str(n), session="", server="", tool=""), 0)
    assert len(windows._uses) == limits.MAX_KEYS
