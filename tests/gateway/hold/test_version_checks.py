"""The versions of woken calls are read, a few at a time."""

import asyncio

from gateway.hold.version_checks import MOST_AT_ONCE, VersionChecks


class Checked:
    """Notes how often it is checked, and how many checks run at once."""

    def __init__(self, state, error=None):
        self.state, self.error, self.done = state, error, 0

    async def check(self):
        self.state.append(+1)
        await asyncio.sleep(0)
        self.state.append(-1)
        self.done += 1
        if self.error is not None:
            raise self.error


async def test_every_request_is_checked_and_only_a_few_at_once():
    checks, state = VersionChecks(), []
    many = [Checked(state) for _ in range(10 * MOST_AT_ONCE)]
    for one in many:
        checks.request(one)
    while checks.tasks:
        await asyncio.sleep(0)
    assert [one.done for one in many] == [1] * len(many)
    running = [sum(state[: n + 1]) for n in range(len(state))]
    assert max(running) <= MOST_AT_ONCE
    assert not checks._due


async def test_a_check_that_fails_is_logged_and_stops_no_other(caplog):
    checks, state = VersionChecks(), []
    many = [Checked(state, ValueError("odd") if n % 2 else None) for n in range(4 * MOST_AT_ONCE)]
    for one in many:
        checks.request(one)
    while checks.tasks:
        await asyncio.sleep(0)
    assert [one.done for one in many] == [1] * len(many)
    assert "a check of a held call failed" in caplog.text
