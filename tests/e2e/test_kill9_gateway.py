"""A gateway process is killed repeatedly while agents, approvers and a server work; the history has no fault.

OKAYED_SOAK sets the number of rounds.
"""

import asyncio
import os
import random
from collections import Counter

import aiohttp

from approvals.store.sqlite.read_only import ReadOnlyStore
from approvals.store.sqlite.store import SqliteStore
from hang import HANG
from history import Answer
from history_checks import assert_no_faults
from process import Process, free_ports, sha256, token
from random_run import FREE, LOOK, POLICY, Endpoint, RandomRun
from run_log import RunLog, all_calls

ROUNDS = int(os.environ.get("OKAYED_SOAK", "5"))
AGENTS = 8
PEOPLE = ("alice", "bob")
KEY = "k" * 32
#: The most entries in the logs between two kills.
MOST = 100


def gateway(folder, url):
    agents, inbox = free_ports(2)
    config = folder / "okayed.yaml"
    people = ", ".join(f"{{name: {name}, token_sha256: {sha256(token(name))}}}" for name in PEOPLE)
    config.write_text(
        f"listen: 127.0.0.1:{agents}\nstore: sqlite:///{folder}/okayed.db\nstore_key: {KEY}\n"
        f"inbox: {{listen: '127.0.0.1:{inbox}'}}\nservers: {{notes: {{url: '{url}'}}}}\napprovers: [{people}]\n"
        f"drain: 0s\napprovals: {{hold_for: 0.1s}}\npolicy: {POLICY}\n"
    )
    config.chmod(0o600)
    return Process(config, agents, inbox)


async def kill_repeatedly(process, run):
    """Kill and restart the gateway ROUNDS times, each time at a random place in the logs."""
    for _ in range(ROUNDS):
        until = run.log.place + run.chance.randrange(1, MOST)
        while run.log.place < until:
            await asyncio.sleep(run.chance.random() * LOOK)  # a kill may come at any moment
        run.up.clear()
        await process.kill()
        await run.log.add_kill()
        await process.start()
        run.up.set()
    run.stopping = True


async def test_a_gateway_killed_at_random_moments_keeps_every_promise(tmp_path):
    run = RandomRun(RunLog(ReadOnlyStore(tmp_path / "okayed.db").head), random.Random())
    async with asyncio.timeout(HANG + 10 * ROUNDS), run.recorder() as recorder:
        process = gateway(tmp_path, recorder.url)
        run.endpoints = [Endpoint(f"{process.agents}/mcp/notes", process.inbox)]
        await process.start()
        run.up.set()
        try:
            async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
                tasks.create_task(run.play(http, AGENTS, PEOPLE))
                tasks.create_task(kill_repeatedly(process, run))
        finally:
            assert await process.stop() == 0
    store = await SqliteStore.open(tmp_path / "okayed.db", chain_key=KEY.encode())
    calls, events = await all_calls(store), await store.events(limit=100_000_000)
    await store.close()
    history = run.log.history(calls, events, chain_key=KEY.encode(), free=frozenset({FREE}))
    assert_no_faults(history)
    seen = Counter(request.answer for request in history.requests)
    assert {Answer.RESULT, Answer.LOST} <= set(seen), seen
    print(f"{ROUNDS} kills, {len(calls)} held calls, {len(events)} events; answers: {dict(seen)}")
