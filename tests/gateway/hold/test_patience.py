"""Waits are learned from clients that time out silently and from clients that repeat after WAITING."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.hold import patience
from gateway.hold.patience import KEPT_SECONDS, MIN_WAIT, ClientKey, LearnedWait, LearnedWaits

WHO = ClientKey("ci-bot", "mcp")
MOST = 14_400.0


def test_nothing_is_learned_from_a_patient_client():
    learned = LearnedWaits()
    learned.record_waiting(WHO, "hold_1", 0.0)
    learned.record_repeat(WHO, "hold_1", MOST, 5.0)
    assert learned.get(WHO, MOST, 6.0) == MOST


def test_a_client_that_gave_up_is_next_answered_in_half_the_time():
    learned = LearnedWaits()
    learned.record_abandoned(WHO, 5.0, 100.0)
    assert learned.get(WHO, MOST, 100.0) == 2.5
    assert learned.get(WHO, 2.0, 100.0) == 2.0
    learned.record_abandoned(WHO, 2.5, 200.0)
    assert learned.get(WHO, MOST, 200.0) == MIN_WAIT


def test_a_client_whose_model_thinks_longer_than_its_timeout_is_soon_answered_in_time():
    timer, thinks, learned, waits = 5.0, 20.0, LearnedWaits(), []
    while (wait := learned.get(WHO, MOST, 0.0)) >= timer:
        waits.append(wait)
        learned.record_abandoned(WHO, timer + thinks, 0.0)
    assert (waits, wait) == ([MOST, 12.5, 6.25], 3.125)


def test_a_learned_wait_is_per_client_and_agent_and_lasts_a_day():
    learned = LearnedWaits()
    learned.record_abandoned(WHO, 5.0, 100.0)
    assert learned.get(ClientKey("other", "mcp"), MOST, 100.0) == MOST
    assert learned.get(ClientKey("ci-bot", "cursor"), 280.0, 100.0) == 280.0
    assert learned.get(WHO, MOST, 99.0 + KEPT_SECONDS) == 2.5
    assert learned.get(WHO, MOST, 100.0 + KEPT_SECONDS) == MOST


def come_again(learned, call="hold_1", most=MOST):
    learned.record_waiting(WHO, call, 0.0)
    learned.record_repeat(WHO, call, most, 0.0)
    return learned.get(WHO, most, 0.0)


def test_a_client_that_completed_its_wait_gets_twice_as_long_up_to_the_table():
    learned = LearnedWaits()
    learned.record_abandoned(WHO, 10.0, 0.0)
    assert [come_again(learned, most=50.0) for _ in range(5)] == [10.0, 20.0, 40.0, 50.0, 50.0]


def test_only_a_repeat_of_the_call_that_got_waiting_proves_a_completed_wait():
    learned = LearnedWaits()
    learned.record_abandoned(WHO, 10.0, 0.0)
    learned.record_repeat(WHO, "hold_1", MOST, 0.0)
    learned.record_waiting(WHO, "hold_1", 0.0)
    learned.record_repeat(WHO, "hold_2", MOST, 0.0)
    assert learned.get(WHO, MOST, 0.0) == 5.0


def test_a_client_with_a_timeout_reaches_it_less_and_less_often():
    timer, learned, met = 5.0, LearnedWaits(), []
    for number in range(200):
        wait = learned.get(WHO, MOST, 0.0)
        if wait >= timer:
            met.append(number)
            learned.record_abandoned(WHO, timer, 0.0)
        else:
            come_again(learned)
    assert met == [0, 2, 5, 10, 19, 36, 69, 134]


def test_a_day_after_its_last_timeout_a_client_has_the_tables_wait_again():
    """Its timeout may have changed, or two patient programs of the same name had sent the same call."""
    learned = LearnedWaits()
    for _ in range(20):
        learned.record_abandoned(WHO, 2.0, 0.0)
    for hour in range(1, 24):
        learned.record_waiting(WHO, "hold_1", hour * 3600.0)
        learned.record_repeat(WHO, "hold_1", MOST, hour * 3600.0)
        assert learned.get(WHO, MOST, hour * 3600.0) == MIN_WAIT
    assert learned.get(WHO, MOST, KEPT_SECONDS) == MOST


@given(
    st.lists(
        st.tuples(st.sampled_from(["gave up", "told", "came"]), st.floats(0.0, 1e5), st.sampled_from("ab"))
    ),
    st.floats(10.0, 1e5),
)
def test_a_learned_wait_is_never_above_the_tables_or_below_the_minimum(steps, most):
    learned, now = LearnedWaits(), 0.0
    for what, seconds, call in steps:
        now += seconds
        match what:
            case "gave up":
                before = learned.get(WHO, most, now)
                learned.record_abandoned(WHO, seconds, now)
                assert learned.get(WHO, most, now) <= max(before, MIN_WAIT)
                assert learned.get(WHO, most, now) <= max(seconds / 2, MIN_WAIT)
            case "told":
                learned.record_waiting(WHO, call, now)
            case "came":
                learned.record_repeat(WHO, call, most, now)
        assert MIN_WAIT <= learned.get(WHO, most, now) <= most


def test_the_number_of_learned_waits_is_limited_and_the_oldest_is_forgotten_first():
    learned = LearnedWaits(most=2)
    names = [ClientKey("ci-bot", str(number)) for number in range(3)]
    for number, who in enumerate(names):
        learned.record_abandoned(who, 10.0, float(number))
        learned.record_abandoned(names[0], 10.0, float(number))
    assert [learned.get(who, MOST, 9.0) for who in names] == [MIN_WAIT, MOST, 5.0]


def test_learning_steps_return_new_values():
    first = patience.shorten_wait(None, 6.0, 1.0)
    assert first == LearnedWait(wait=3.0, abandoned_at=1.0)
    assert patience.lengthen_wait(first, 6.0) is None
    assert patience.lengthen_wait(first, 7.0) == LearnedWait(wait=6.0, abandoned_at=1.0)
