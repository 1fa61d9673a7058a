"""A client that waits for a held call costs little memory, and no task or generator."""

import asyncio
import gc
import json
import tracemalloc
from types import AsyncGeneratorType, CoroutineType, GeneratorType

import pytest

from gateway.auth.agents import LOCAL
from gateway.call.request import Exchange, RequestHead
from gateways import running
from hang import HANG
from parking_reader import ParkingReader

COUNT = 400
#: Bytes of a waiting client, and of all that is kept for its call of 680 bytes. Measured: 1,600 and 4,200.
MOST_WAITING, MOST_IN_ALL = 2500, 5500
HEAD = RequestHead((("content-type", "application/json"), ("accept", "application/json, text/event-stream")))
LIMITS = "approvals: {hold_for: 1h}\nlimits: {open: 1000, open_per_agent: 1000}"
RUNNING = (AsyncGeneratorType, GeneratorType, CoroutineType)


def exchange(number, meta):
    params = {"name": "create_note", "arguments": {"text": f"{number:06}" * 100}, **meta}
    frame = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return Exchange(agent=LOCAL, server="notes", verb="POST", body=json.dumps(frame).encode(), head=HEAD)


async def parked(gateway, numbers, meta):
    """Hold calls, and return their readers once all are parked and nothing else runs for them."""
    readers = [ParkingReader(gateway.gateway.proxy.begin(exchange(number, meta))) for number in numbers]
    checks = gateway.gateway.proxy._held_answers._context.checks
    async with asyncio.timeout(HANG):
        while not all(one.parked and one.task.done() for one in readers) or checks.tasks:
            await asyncio.sleep(0)
    for one in readers:
        one.task = None
    return readers


def census():
    """Count what may run: tasks, generators and coroutines."""
    gc.collect()
    return len(asyncio.all_tasks()), sum(isinstance(one, RUNNING) for one in gc.get_objects())


@pytest.mark.parametrize(
    "meta", [{}, {"_meta": {"progressToken": 7}}], ids=["without a token", "with a token"]
)
async def test_no_task_and_no_generator_exists_for_a_waiting_client(meta):
    async with running(more=LIMITS) as gateway:
        first = await parked(gateway, range(1), meta)
        before = census()
        readers = await parked(gateway, range(1, 101), meta)
        async with asyncio.timeout(HANG):  # the gateway's own work may still end
            while any(now > then for now, then in zip(census(), before, strict=True)):
                await asyncio.sleep(0)
        for one in [*first, *readers]:
            one.leave()


async def test_a_waiting_client_takes_little_memory_beside_its_stored_call():
    async with running(more=LIMITS) as gateway:
        first = await parked(gateway, range(10), {})
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.take_snapshot()
        readers = await parked(gateway, range(10, 10 + COUNT), {})
        gc.collect()
        grown = tracemalloc.take_snapshot().compare_to(before, "filename")
        tracemalloc.stop()
        for one in [*first, *readers]:
            one.leave()
        in_all = sum(one.size_diff for one in grown) / COUNT
        waiting = sum(one.size_diff for one in grown if is_for_waiting(one.traceback[0].filename)) / COUNT
        assert waiting < MOST_WAITING
        assert in_all < MOST_IN_ALL


def is_for_waiting(filename):
    return "/gateway/hold/" in filename or filename.endswith(("/wakeups.py", "/presence.py"))
