"""A person takes seconds, minutes, hours, a day: every client, with the limits measured of it, gets the one decision, and one run.

The time is simulated, the clients behave as docs/protocol.md says of them; everything else is the gateway itself.
"""

import asyncio

import pytest

from simulated_clients import CLIENTS, DONE, TIMES, Client, World
from simulated_time import run_long


@pytest.fixture
def no_timer_helps():
    """Hours pass at once here, beat by beat."""


def how(client):
    """Say how the client was kept waiting."""
    return "again" if client.asked > 1 else "rounds" if client.rounds else "1"


@pytest.mark.parametrize("takes", TIMES)
@pytest.mark.parametrize("name", CLIENTS)
def test_the_decision_arrives_however_long_it_takes_and_the_call_runs_once(name, takes):
    kind, traits, expected = CLIENTS[name]

    async def main():
        world = World()
        client = kind(world, **traits)
        person = asyncio.ensure_future(world.decide(TIMES[takes]))
        others = [
            asyncio.ensure_future(world.run()),
            asyncio.ensure_future(world.service.wakeups.follow(world.store)),
        ]
        said = await client.work()
        await person
        for one in others:
            one.cancel()
        await world.proxy.tasks.close()
        assert said == DONE
        assert world.server.runs == 1
        assert how(client) == expected.split()[list(TIMES).index(takes)]
        if client.limit >= 50 and kind is Client:
            assert client.gave_up == 0
        assert len(await world.store.select()) == 1

    run_long(main)
