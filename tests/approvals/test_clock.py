"""The clock of deadlines, while the machine's clock is changed."""

from hypothesis import given
from hypothesis import strategies as st

from approvals.clock import EffectiveClock

NOON = 1_800_000_000.0
MINUTES = 60.0


class Machine:
    """A machine whose clock can be set."""

    def __init__(self):
        self.wall, self.uptime = NOON, 5.0

    def clock(self, mark=0.0):
        return EffectiveClock(lambda: self.wall, lambda: self.uptime, mark)

    def later(self, seconds):
        self.wall += seconds
        self.uptime += seconds


def test_it_equals_the_wall_clock_until_the_wall_clock_is_set_back():
    machine = Machine()
    clock = machine.clock()
    machine.later(7)
    assert clock() == NOON + 7
    machine.wall += 10 * MINUTES
    assert clock() == NOON + 7 + 10 * MINUTES
    assert clock.behind == 0


def test_setting_the_wall_clock_back_does_not_set_it_back():
    machine = Machine()
    clock = machine.clock()
    assert clock() == NOON
    machine.wall -= 10 * MINUTES
    machine.later(9)
    assert clock() == NOON + 9
    assert clock.behind == 10 * MINUTES
    machine.wall += 10 * MINUTES
    assert clock() == NOON + 9
    assert clock.behind == 0


def test_it_continues_from_the_highest_time_when_the_wall_clock_is_behind():
    machine = Machine()
    clock = machine.clock(NOON + 100)
    machine.later(9)
    assert clock() == NOON + 109
    assert clock.behind == 100


def test_a_highest_time_in_the_past_has_no_effect():
    assert Machine().clock(NOON - 1e6)() == NOON


@given(st.lists(st.tuples(st.floats(-1e5, 1e5), st.floats(0, 1e5)), max_size=30))
def test_it_never_goes_back_and_is_never_slower_than_the_monotonic_clock(moves):
    machine = Machine()
    clock = machine.clock()
    was = clock()
    for jump, passed in moves:
        machine.wall += jump
        machine.later(passed)
        now = clock()
        assert now >= max(was + passed, machine.wall) - 1e-3
        was = now
