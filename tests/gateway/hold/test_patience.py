"""What is learned of a client that tells nobody when it gives up, and of one that comes again when it is told to."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.hold import patience
from gateway.hold.patience import KEPT_SECONDS, MIN_WAIT, ClientKey, LearnedWait, LearnedWaits

WHO = ClientKey("ci-bot", "mcp")
MOST = 14_400.0


def test_nothing_is_learned_of_a_client_that_is_patient():
    learned = LearnedWaits()
    learned.record_waiting(WHO, "hold_1", 0.0)
    learned.record_repeat(WHO, "hold_1", MOST, 5.0)
    assert learned.get(WHO, MOST, 6.0) == MOST


def test_a_client_that_gave_up_is_next_answered_after_half_that_time():
    learned = LearnedWaits()
    learned.record_abandoned(WHO, 5.0, 100.0)
    assert learned.get(WHO, MOST, 100.0) == 2.5
    assert learned.get(WHO, 2.0, 100.0) == 2.0
    learned.record_abandoned(WHO, 2.5, 200.0)
    assert learned.get(WHO, MOST, 200.0) == MIN_WAIT


def test_a_client_that_thinks_for_longer_than_its_timer_before_it_asks_again_is_soon_answered_in_time():
    timer, thinks, learned, waits = 5.0, 20.0, LearnedWaits(), []
    while (wait := learned.get(WHO, MOST, 0.0)) >= timer:
        waits.append(wait)
        learned.record_abandoned(WHO, timer + thinks, 0.0)
    assert (waits, wait) == ([MOST, 12.5, 6.25], 3.125)


def test_what_is_learned_of_a_client_counts_for_that_client_of_that_agent_and_for_a_day():
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


def test_a_client_that_bore_its_wait_is_given_twice_as_long_up_to_the_table():
    learned = LearnedWaits()
    learned.record_abandoned(WHO, 10.0, 0.0)
    assert [come_again(learned, most=50.0) for _ in range(5)] == [10.0, 20.0, 40.0, 50.0, 50.0]


def test_only_the_call_that_it_was_told_to_ask_for_shows_that_a_client_bore_its_wait():
    learned = LearnedWaits()
    learned.record_abandoned(WHO, 10.0, 0.0)
    learned.record_repeat(WHO, "hold_1", MOST, 0.0)
    learned.record_waiting(WHO, "hold_1", 0.0)
    learned.record_repeat(WHO, "hold_2", MOST, 0.0)
    assert learned.get(WHO, MOST, 0.0) == 5.0


def test_a_client_with_a_timer_meets_it_ever_more_seldom():
    timer, learned, met = 5.0, LearnedWaits(), []
    for number in range(200):
        wait = learned.get(WHO, MOST, 0.0)
        if wait >= timer:
            met.append(number)
            learned.record_abandoned(WHO, timer, 0.0)
        else:
            come_again(learned)
    assert met == [0, 2, 5, 10, 19, 36, 69, 134]


def test_a_day_after_it_last_gave_up_a_client_has_the_wait_of_the_table_however_often_it_asked_meanwhile():
    """Its timer may be another by then, or two patient programs of one name had asked for the same."""
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
def test_whatever_a_client_does_its_wait_is_never_longer_than_the_tables_nor_too_short_to_tell(steps, most):
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


def test_only_so_many_clients_are_remembered_and_the_oldest_is_forgotten_first():
    learned = LearnedWaits(most=2)
    names = [ClientKey("ci-bot", str(number)) for number in range(3)]
    for number, who in enumerate(names):
        learned.record_abandoned(who, 10.0, float(number))
        learned.record_abandoned(names[0], 10.0, float(number))
    assert [learned.get(who, MOST, 9.0) for who in names] == [MIN_WAIT, MOST, 5.0]


def test_steps_are_values():
    first = patience.shorten_wait(None, 6.0, 1.0)
    assert first == LearnedWait(wait=3.0, abandoned_at=1.0)
    assert patience.lengthen_wait(first, 6.0) is None
    assert patience.lengthen_wait(first, 7.0) == LearnedWait(wait=6.0, abandoned_at=1.0)
