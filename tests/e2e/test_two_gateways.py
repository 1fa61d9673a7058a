"""Two whole gateways on one store, with agents, approvers and a server at both; the history has no fault.

OKAYED_SOAK sets the number of gateways that are killed.
"""

import asyncio
import os
from collections import Counter
from random import Random, SystemRandom

import aiohttp
import pytest

from approvals.model import Decision
from gateway.app.config import parse_config
from gateways import Clock, call, last_frame, text
from hang import HANG
from history import Answer
from history_checks import assert_no_faults
from killable_gateways import KillableGateway
from process import sha256, token
from random_run import FREE, LOOK, POLICY, RandomRun
from run_log import RunLog, all_calls
from two_gateways import OPENERS, SharedStore

AGENTS = 8
PEOPLE = ("alice", "bob")
#: Seconds that the clock moves at once: a gateway that lives renews its lease in time.
STEP = 5.0
CALL = b'{"marker": "once" }'
INITIALIZE = {
    "jsonrpc": "2.0", "id": 0, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}  # fmt: skip
#: The gateways that are killed in a run, and its steps.
KILLS = int(os.environ.get("OKAYED_SOAK", "3"))
STEPS = 20 * KILLS


def build_config(url):
    people = ", ".join(f"{{name: {name}, token_sha256: {sha256(token(name))}}}" for name in PEOPLE)
    return parse_config(
        f"listen: 127.0.0.1:0\nstore: 'memory:'\ninbox: {{listen: '127.0.0.1:0'}}\nservers: {{notes: {{url: '{url}'}}}}\n"
        f"approvers: [{people}]\ndrain: 0s\napprovals: {{hold_for: 20s, expire_after: 2m}}\n"
        f"policy: {POLICY}\n",
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
        replica = KillableGateway(SharedStore(self.store), self.config, self.clock, self.chance)
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

    async def one_pending(self, http, at):
        """Wait until one call is pending, and return it as the inbox of this gateway shows it."""
        while len(found := await self.run.list_calls(http, "alice", "pending", at=at)) != 1:
            await asyncio.sleep(LOOK)  # until a request has arrived
        return found[0]


@pytest.fixture(params=OPENERS.values(), ids=OPENERS.keys())
async def both(request, tmp_path):
    """Two gateways on one store; the history is checked at the end."""
    store = await request.param(tmp_path)
    two = TwoGateways(store, Random(SystemRandom().randrange(2**32)))
    async with asyncio.timeout(HANG + KILLS), two.run.recorder() as recorder:
        await two.start(recorder.url)
        async with aiohttp.ClientSession() as http:
            yield two, http
        for replica in two.replicas:
            await replica.stop()
    calls, events = await all_calls(store), await store.events(limit=100_000)
    await store.close()
    assert_no_faults(two.run.log.history(calls, events, free=frozenset({FREE})))


async def test_two_gateways_of_which_some_are_killed_keep_every_promise(both):
    two, http = both
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(two.run.play(http, AGENTS, PEOPLE))
        tasks.create_task(two.let_time_pass())
    seen = Counter(request.answer for request in two.run.log.requests)
    assert {Answer.RESULT, Answer.WAITING} <= set(seen), seen
    print(f"{KILLS} kills; answers: {dict(seen)}")


async def test_the_same_call_at_both_gateways_waits_once_and_runs_once(both):
    two, http = both
    two.run.trouble = False
    a, b = two.run.endpoints
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(two.run.ask(http, "create_note", CALL, at=a))
        held = await two.one_pending(http, b)
        second = tasks.create_task(two.run.ask(http, "create_note", CALL, at=b))
        while held["id"] not in two.replicas[1].gateway.service.presence.clients:
            await asyncio.sleep(0)
        await two.run.review(http, "alice", held, Decision.APPROVE, at=b)
    assert [(await one)[0] for one in (first, second)] == [Answer.RESULT] * 2
    assert len(two.run.log.received) == 1


async def test_a_call_held_at_a_killed_gateway_is_answered_at_the_other(both):
    two, http = both
    two.run.trouble = False
    a, b = two.run.endpoints
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(two.run.ask(http, "create_note", CALL, at=a))
        held = await two.one_pending(http, b)
        await two.replace(0)
        assert (await first)[0] is Answer.LOST
        second = tasks.create_task(two.run.ask(http, "create_note", CALL, at=b))
        await two.run.review(http, "bob", held, Decision.APPROVE, at=two.run.endpoints[0])
    assert (await second)[0] is Answer.RESULT
    assert len(two.run.log.received) == 1


async def test_a_stream_that_broke_is_resumed_at_the_other_gateway(both):
    two, http = both
    two.run.trouble = False
    a, b = two.run.endpoints
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    opened = await http.post(a.agents, json=INITIALIZE, headers=headers)
    session = (
        {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]} if "Mcp-Session-Id" in opened.headers else {}
    )
    stream = await http.post(
        a.agents,
        json=call("create_note", {"marker": "resumed"}, _meta={"progressToken": 1}),
        headers=headers | session,
    )
    event_id = (await stream.content.readuntil(b"\n")).removeprefix(b"id: ").decode().strip()
    held = await two.one_pending(http, b)
    stream.close()
    async with asyncio.TaskGroup() as tasks:
        resumed = await http.get(b.agents, headers=headers | session | {"Last-Event-ID": event_id})
        tasks.create_task(two.run.review(http, "alice", held, Decision.APPROVE, at=a))
        assert text(last_frame(await resumed.read())) == "ran resumed"
