"""Every known client, with its measured limits, gets the decision and one run, even after a day.

The time is simulated, and the clients behave as in docs/protocol.md. The rest is the gateway itself.
"""

import asyncio

import pytest

from simulated_clients import CLIENTS, DONE, TIMES, SimulatedClient, SimulatedGateway
from simulated_time import run_in_simulated_time


@pytest.fixture
def no_timer_helps():
    """Here simulated hours pass at once, beat by beat."""


def how_kept_waiting(client):
    """Return how the client was kept waiting."""
    return "again" if client.attempts > 1 else "rounds" if client.rounds else "1"


@pytest.mark.parametrize("takes", TIMES)
@pytest.mark.parametrize("name", CLIENTS)
def test_the_decision_arrives_however_long_it_takes_and_the_call_runs_once(name, takes):
    kind, traits, expected = CLIENTS[name]

    async def main():
        gateway = SimulatedGateway()
        client = kind(gateway, **traits)
        person = asyncio.ensure_future(gateway.decide(TIMES[takes]))
        others = [
            asyncio.ensure_future(gateway.run()),
            asyncio.ensure_future(gateway.service.wakeups.follow(gateway.store)),
        ]
        said = await client.call_until_done()
        await person
        for one in others:
            one.cancel()
        await gateway.proxy.tasks.close()
        assert said == DONE
        assert gateway.server.runs == 1
        assert how_kept_waiting(client) == expected.split()[list(TIMES).index(takes)]
        if client.limit >= 50 and kind is SimulatedClient:
            assert client.timeouts == 0
        assert len((await gateway.store.select()).items) == 1

    run_in_simulated_time(main)
