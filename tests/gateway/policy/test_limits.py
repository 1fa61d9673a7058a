"""Sliding windows never exceed their limit, even if the clock jumps."""

from math import inf, nan

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.limits import (
    Limit,
    LimitScope,
    LimitUser,
    Windows,
    find_bad_amount,
    window_key,
    with_amount,
)
from rows import each_row

ME = LimitUser(agent="a", session="s", server="iam", tool="t")
SPEND = Limit(name="s", max=100, window=60, argument="args.pay.amount")
TWO = Limit(name="r", max=2, window=60)


def test_a_use_over_the_limit_is_refused_with_the_time_to_retry():
    windows = Windows()
    assert windows.take([TWO], ME, 0) is None
    assert windows.take([TWO], ME, 10) is None
    over = windows.take([TWO], ME, 20)
    assert (over.limit, over.retry_after) == (TWO, 40)
    assert windows.take([TWO], ME, 60) is None
    assert windows.take([TWO], ME, 69).retry_after == 1


def test_a_refused_use_takes_nothing_from_the_limit():
    windows = Windows()
    for now in (0, 1, 2, 3, 4):
        windows.take([TWO], ME, now)
    assert windows.take([TWO], ME, 60) is None


def test_a_use_is_recorded_in_all_limits_or_in_none():
    one = Limit(name="q", max=1, window=10)
    windows = Windows()
    assert windows.take([TWO, one], ME, 0) is None
    assert windows.take([TWO, one], ME, 1).limit == one
    assert windows.take([TWO], ME, 2) is None  # the refused use took nothing from the other limit


def test_a_limit_of_zero_never_allows_a_use():
    assert Windows().take([Limit(name="n", max=0, window=5)], ME, 0).retry_after == inf


def test_uses_are_counted_per_session_agent_or_tool_or_for_everyone():
    other = {
        LimitScope.SESSION: LimitUser(agent="a", session="other", server="iam", tool="t"),
        LimitScope.AGENT: LimitUser(agent="b", session="s", server="iam", tool="t"),
    }
    for per, scope in other.items():
        assert window_key(Limit(name="r", max=1, window=1, per=per), ME) != window_key(
            Limit(name="r", max=1, window=1, per=per), scope
        )
    everyone = Limit(name="r", max=1, window=1, per=LimitScope.EVERYONE)
    assert window_key(everyone, ME) == window_key(everyone, other[LimitScope.AGENT])
    assert window_key(everyone, ME) != window_key(
        everyone, LimitUser(agent="a", session="s", server="iam", tool="u")
    )


def test_uses_before_a_restart_still_count():
    windows = Windows([(window_key(TWO, ME), 100.0, 1), (window_key(TWO, ME), 110.0, 1)])
    assert windows.take([TWO], ME, 120).retry_after == 40


def test_a_limit_that_denies_is_reported_before_one_that_requires_approval():
    ask, deny = Limit(name="a", max=0, window=99, needs_approval=True), Limit(name="d", max=0, window=1)
    assert Windows().peek([ask, deny], ME, 0).limit == deny


def test_a_limit_is_described_in_plain_words():
    assert TWO.text == "2 calls per 60 s"
    assert Limit(name="r", max=1, window=0.5).text == "1 call per 0.5 s"
    assert SPEND.text == "args.pay.amount may add up to 100 per 60 s"
    assert Limit(name="r", max=1e6 + 0.5, window=1, argument="args.a").text.startswith(
        "args.a may add up to 1000000.5 per"
    )


def spending(amount):
    return with_amount(SPEND, {"pay": {"amount": amount}})


def test_amounts_are_added_up_until_their_window_ends():
    windows = Windows()
    assert windows.take([spending(60)], ME, 0) is None
    assert windows.take([spending(30.5)], ME, 10) is None
    assert windows.take([spending(10)], ME, 20).retry_after == 40
    assert windows.take([spending(9.5)], ME, 20) is None
    assert windows.take([spending(100)], ME, 79).retry_after == 1
    assert windows.take([spending(100)], ME, 80) is None


def test_an_amount_over_the_limit_by_itself_never_fits():
    assert Windows().take([spending(100.01)], ME, 0).retry_after == inf


def test_decimal_amounts_are_added_exactly():
    tenths = Limit(name="s", max=0.3, window=60, argument="args.x")
    windows = Windows()
    assert [windows.take([with_amount(tenths, {"x": x})], ME, 0) for x in (0.1, 0.2)] == [None, None]
    assert windows.take([with_amount(tenths, {"x": 1e-300})], ME, 0) is not None


def test_a_use_of_zero_takes_no_memory():
    windows = Windows()
    for _ in range(9):
        assert windows.take([spending(0)], ME, 0) is None
    assert windows._uses == {}


def test_amounts_before_a_restart_still_count():
    windows = Windows([(window_key(SPEND, ME), 100.0, 60.0), (window_key(SPEND, ME), 110.0, 30.0)])
    assert windows.take([spending(11)], ME, 120).retry_after == 40


def test_a_call_limit_and_a_spend_limit_take_both_or_neither():
    windows = Windows()
    assert windows.take([TWO, spending(90)], ME, 0) is None
    assert windows.take([TWO, spending(90)], ME, 1).limit.name == "s"
    assert windows.take([TWO, spending(10)], ME, 2) is None
    assert windows.take([TWO, spending(0)], ME, 3).limit == TWO


@each_row(
    ("arguments", "why"),
    [
        ({"pay": {"amount": 0}}, None),
        ({"pay": {"amount": 10**400}}, None),
        ({}, "must be a number"),
        ({"pay": 5}, "must be a number"),
        ({"pay": {"amount": "5"}}, "must be a number"),
        ({"pay": {"amount": True}}, "must be a number"),
        ({"pay": {"amount": None}}, "must be a number"),
        ({"pay": {"amount": -0.01}}, "must not be negative"),
        ({"pay": {"amount": inf}}, "must not be negative"),
        ({"pay": {"amount": nan}}, "must not be negative"),
    ],
)
def test_an_amount_that_cannot_be_added_up_is_reported(arguments, why):
    assert find_bad_amount(TWO, arguments) is None
    problem = find_bad_amount(SPEND, arguments)
    assert problem is None if why is None else why in problem
    if problem is None:
        assert with_amount(SPEND, arguments).amount == arguments["pay"]["amount"]


def test_a_shared_limit_has_one_window_for_all_tools():
    shared = Limit(name="r", max=1, window=1, shared=True)
    assert window_key(shared, ME) == window_key(
        shared, LimitUser(agent="a", session="s", server="other", tool="u")
    )
    assert window_key(shared, ME) != window_key(
        shared, LimitUser(agent="a", session="u", server="iam", tool="t")
    )


@given(st.lists(st.tuples(st.floats(-5, 30), st.integers(0, 120)), max_size=60))
def test_no_window_ever_adds_up_to_more_than_the_limit(steps):
    windows, now, latest, taken = Windows(), 1000.0, 0.0, []
    for step, amount in steps:
        now += step
        latest = max(latest, now)
        if windows.take([spending(amount)], ME, now) is None:
            taken.append((latest, amount))
    for at, _ in taken:
        assert sum(amount for other, amount in taken if at - 60 < other <= at) <= 100


@given(st.lists(st.floats(-30, 30), max_size=60), st.integers(1, 4), st.floats(1, 50))
def test_no_window_ever_has_more_calls_than_the_limit(steps, most, window):
    limit = Limit(name="r", max=most, window=window)
    windows, now, latest, taken = Windows(), 1000.0, 0.0, []
    for step in steps:
        now += step
        latest = max(latest, now)
        if windows.take([limit], ME, now) is None:
            taken.append(latest)
    for at in taken:
        assert sum(at - window < other <= at for other in taken) <= most


def test_the_number_of_windows_is_bounded():
    windows = Windows(most=100)
    for n in range(110):
        windows.take([TWO], LimitUser(agent=str(n), session="", server="", tool=""), 0)
    assert len(windows._uses) == 100


def test_the_least_recently_used_window_is_dropped_first():
    windows = Windows(most=2)
    for session in "abac":
        windows.take([TWO], LimitUser(agent="a", session=session, server="", tool=""), 0)
    assert [
        window_key(TWO, LimitUser(agent="a", session=session, server="", tool="")) for session in "ac"
    ] == list(windows._uses)
