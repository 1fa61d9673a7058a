"""Two whole gateways on one store, with agents, approvers and a server at both; the history has no fault."""

import asyncio
from collections import Counter
from random import Random, SystemRandom

import aiohttp
import pytest

from gateway.app.config import parse_config
from gateway_replicas import GatewayReplica
from gateways import Clock
from hang import HANG
from history import Answer, find_faults
from process import sha256, token
from random_run import FREE, LOOK, RandomRun
from run_log import RunLog, all_calls
from two_gateways import OPENERS, SharedStore

AGENTS = 8
PEOPLE = ("alice", "bob")
#: Seconds that the clock moves at once: a gateway that lives renews its lease in time.
STEP = 5.0
#: The steps of a run, and the number of gateways that are killed in it.
STEPS, KILLS = 60, 3


def build_config(url):
    people = ", ".join(f"{{name: {name}, token_sha256: {sha256(token(name))}}}" for name in PEOPLE)
    return parse_config(
        f"listen: 127.0.0.1:0\nstore: 'memory:'\ninbox: {{listen: '127.0.0.1:0'}}\nservers: {{notes: {{url: '{url}'}}}}\n"
        f"approvers: [{people}]\ndrain: 0s\napprovals: {{hold_for: 20s, expire_after: 2m}}\n"
        "policy: {default: require_approval, matrix: [{category: [Read], action: allow}]}\n",
        {},
        str,
    )


class TwoGateways:
    """Two gateways, and the run around them."""

    def __init__(self, store, chance):
        self.store, self.clock, self.chance = store, Clock(), chance
        self.run = RandomRun(RunLog(self._read_head), chance)
        self.replicas = []

    async def _read_head(self):
        await self.store.check()  # after every write that was already under way
        return await self.store.head()

    async def start(self, url):
        self.config = build_config(url)
        self.replicas = [await self._start_one(), await self._start_one()]
        self._listen()

    async def _start_one(self):
        replica = GatewayReplica(SharedStore(self.store), self.config, self.clock, self.chance)
        await replica.start()
        return replica

    def _listen(self):
        self.run.endpoints = [replica.endpoint for replica in self.replicas]
        self.run.up.set()

    async def let_time_pass(self):
        kills = set(self.chance.sample(range(STEPS), KILLS))
        for step in range(STEPS):
            await asyncio.sleep(self.chance.random() * LOOK)  # the clients work meanwhile
            await self.move_clock()
            if step in kills:
                await self.replace(self.chance.randrange(2))
        self.run.stopping = True
        while self.run.agents:
            await asyncio.sleep(LOOK)
            await self.move_clock()
        for _ in range(10):  # past the lease of a killed gateway
            await self.move_clock()

    async def move_clock(self):
        self.clock.now += STEP
        for replica in self.replicas:
            await replica.sweep()

    async def replace(self, number):
        """Kill a gateway, and start another in its place."""
        old = self.replicas[number]
        await old.kill()
        await self.run.log.add_kill(old.gateway.service.replica.id)
        self.replicas[number] = await self._start_one()
        self._listen()


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS.keys())
async def test_two_gateways_on_one_store_keep_every_promise(opener, tmp_path):
    store = await opener(tmp_path)
    both = TwoGateways(store, Random(SystemRandom().randrange(2**32)))
    async with asyncio.timeout(HANG), both.run.recorder() as recorder:
        await both.start(recorder.url)
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
            tasks.create_task(both.run.play(http, AGENTS, PEOPLE))
            tasks.create_task(both.let_time_pass())
        for replica in both.replicas:
            await replica.stop()
    calls, events = await all_calls(store), await store.events(limit=100_000)
    await store.close()
    history = both.run.log.history(calls, events, free=frozenset({FREE}))
    assert find_faults(history) == []
    seen = Counter(request.answer for request in history.requests)
    assert {Answer.RESULT, Answer.WAITING} <= set(seen), seen
    print(f"{KILLS} kills, {len(calls)} held calls, {len(events)} events; answers: {dict(seen)}")
