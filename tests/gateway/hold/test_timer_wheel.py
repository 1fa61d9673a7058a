"""Timers fire once, on time, and none is left behind."""

import asyncio
import logging

from gateway.hold.timer_wheel import MOST_AT_ONCE, SPACING, TimerWheel
from simulated_time import run_in_simulated_time

BEAT = 15.0


class Timer:
    """Notes when it fires; adds itself again, as a sign of life does, until *beats* are over."""

    def __init__(self, wheel, due, beats=1):
        self.wheel, self.due, self.beats, self.fired = wheel, due, beats, []
        self.slot = wheel.add(self, due)

    def on_time(self):
        self.fired.append(asyncio.get_running_loop().time())
        self.beats -= 1
        if self.beats:
            self.due += BEAT
            self.slot = self.wheel.add(self, self.due)


def make_wheel():
    return TimerWheel(asyncio.get_running_loop().time)


def test_many_timers_that_are_added_again_all_fire_on_time():
    async def main():
        wheel = make_wheel()
        many = [Timer(wheel, BEAT + n % 7 * SPACING, beats=4) for n in range(5 * MOST_AT_ONCE)]
        await asyncio.sleep(10 * BEAT)
        for timer in many:
            first = timer.due - 3 * BEAT
            late = [at - (first + n * BEAT) for n, at in enumerate(timer.fired)]
            assert len(late) == 4
            assert min(late) >= 0
            assert max(late) < 2 * SPACING
        assert len(wheel) == 0

    run_in_simulated_time(main)


def test_a_timer_that_adds_a_later_one_delays_none_of_the_others():
    async def main():
        wheel = make_wheel()
        Timer(wheel, 1.0, beats=2)
        next_one = Timer(wheel, 1.5)
        await asyncio.sleep(2.0)
        assert next_one.fired == [1.5]

    run_in_simulated_time(main)


def test_an_earlier_timer_fires_before_the_timers_that_were_there():
    async def main():
        wheel = make_wheel()
        late = Timer(wheel, 20.0)
        soon = Timer(wheel, 2.0)
        await asyncio.sleep(3.0)
        assert (soon.fired, late.fired) == ([2.0], [])

    run_in_simulated_time(main)


def test_a_removed_timer_does_not_fire_even_if_another_one_of_its_turn_removes_it():
    async def main():
        wheel = make_wheel()
        removed = Timer(wheel, 1.0)
        wheel.remove(removed, removed.slot)
        second = Timer(wheel, 2.0)
        first = Timer(wheel, 1.0)
        third = Timer(wheel, 2.0)
        first.on_time = lambda: wheel.remove(second, second.slot)
        await asyncio.sleep(3.0)
        assert (removed.fired, second.fired, third.fired) == ([], [], [2.0])
        wheel.remove(third, third.slot)
        assert not wheel._slots

    run_in_simulated_time(main)


def test_no_timer_of_the_event_loop_is_left_without_timers():
    async def main():
        wheel = make_wheel()
        timer = Timer(wheel, 100.0)
        wheel.remove(timer, timer.slot)
        assert wheel._timer is None
        assert Timer(wheel, 5.0).slot == 5.0 / SPACING
        await asyncio.sleep(6.0)
        assert wheel._timer is None

    run_in_simulated_time(main)


def test_a_clock_that_jumps_ahead_fires_what_is_due_and_one_that_is_behind_waits():
    async def main():
        loop, jump = asyncio.get_running_loop(), 0.0
        wheel = TimerWheel(lambda: loop.time() + jump)
        timer = Timer(wheel, 10.0)
        jump = -5.0
        await asyncio.sleep(12.0)
        assert timer.fired == []
        await asyncio.sleep(4.0)
        assert timer.fired == [15.0]
        timers = [Timer(wheel, loop.time() + jump + n) for n in range(1, 4)]
        jump += 100.0
        await asyncio.sleep(1.1)
        assert [len(one.fired) for one in timers] == [1, 1, 1]

    run_in_simulated_time(main)


def test_a_timer_that_fails_is_logged_and_stops_no_other(caplog):
    async def main():
        wheel = make_wheel()
        bad, good = Timer(wheel, 1.0), Timer(wheel, 1.0)
        bad.on_time = lambda: 1 / 0
        await asyncio.sleep(2.0)
        assert good.fired == [1.0]

    with caplog.at_level(logging.ERROR):
        run_in_simulated_time(main)
    assert "a timer failed" in caplog.text
