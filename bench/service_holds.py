"""Measures the approval service and the SQLite store alone: durable holds per second beside many open calls.

`python bench/service_holds.py OPEN...` prints one JSON object: for each number of open calls, the holds per second
of the best round. CALLERS tasks hold calls at once, as the connections of agents do.
"""

import asyncio
import gc
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import uvloop
from past_calls import build_call

from approvals.identity import Directory
from approvals.model import Approver, HeldCall
from approvals.quotas import Quotas
from approvals.service import ApprovalService
from approvals.store.sqlite.store import SqliteStore

AGENTS, CALLERS = 120, 250
ROUNDS, CALLS = 5, 1000
QUOTAS = Quotas(
    open=1 << 20, open_per_agent=1 << 20, bytes=1 << 40, bytes_per_agent=1 << 40, bytes_per_agent_hour=1 << 40
)


async def hold_all(service: ApprovalService, calls: Iterable[HeldCall]) -> float:
    """Hold calls from CALLERS tasks; return the seconds until all are durable."""
    left = iter(calls)

    async def hold() -> None:
        for call in left:
            await service.hold(call)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(hold())
    return time.perf_counter() - start


async def measure_holds(service: ApprovalService, numbers: Iterator[int]) -> float:
    """Return the holds per second of one round; the calls of the round are cancelled again."""
    calls = prepare_calls(service, numbers, CALLS)
    seconds = await hold_all(service, calls)
    await asyncio.gather(*(service.cancel(call.id, "measured", actor=call.call.agent) for call in calls))
    return CALLS / seconds


def prepare_calls(service: ApprovalService, numbers: Iterator[int], count: int) -> list[HeldCall]:
    calls = [
        build_call(number, service.clock(), f"agent-{number % AGENTS}")
        for number in itertools.islice(numbers, count)
    ]
    gc.collect()
    return calls


async def measure(levels: Iterable[int]) -> dict[int, float]:
    """Return the holds per second at each number of open calls."""
    numbers, found, opened = itertools.count(), {}, 0
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "holds.db")
        service = ApprovalService(store, Directory([Approver(name="bench")]), clock=time.time)
        service.quotas = QUOTAS
        for level in sorted(levels):
            await hold_all(service, prepare_calls(service, numbers, level - opened))
            opened = level
            found[level] = max([await measure_holds(service, numbers) for _ in range(ROUNDS)])
        await store.close()
    return found


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(map(int, sys.argv[1:])))))
