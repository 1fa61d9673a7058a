"""Ended calls leave nothing in the memory of a gateway."""

import asyncio
import os

import pytest

from approvals.model import Decision
from approvals.presence import MIN_ATTENDED
from approvals.replica import RENEW_EVERY
from containers import container_sizes
from gateways import TASKS, call
from hang import HANG
from two_gateways import OPENERS, two_gateways

#: The calls of each kind. A container that keeps one entry per call would grow by as many.
CALLS = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 20
#: Kept on purpose, up to a limit: how long the last requests waited until their clients ended them.
LIMITED = ("_ended",)


async def pending(gateway, arguments):
    async with asyncio.timeout(HANG):
        while True:
            found = (await gateway.gateway.store.select(["pending"])).items
            if one := next((one for one in found if one.call.arguments == arguments), None):
                return one
            await asyncio.sleep(0)


async def finish(at, other, n, decision=Decision.APPROVE):
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(at.call("create_note", {"n": n}, id=n))
        await other.review(await pending(other, b'{"n": %d}' % n), decision, "why")


async def deny(at, other, n):
    await finish(at, other, n, Decision.DENY)


async def leave(at, other, n):
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(at.post(call("create_note", {"n": n}, id=n)))
        held = await pending(other, b'{"n": %d}' % n)
        agent.cancel()
    await other.gateway.service.cancel(held.id, "the client left", actor="test")


async def finish_task(at, other, n):
    given = {"name": "create_note", "arguments": {"n": n}}
    task = (await at.ask("tools/call", given, declares=TASKS)).result["taskId"]
    [held] = await other.held()
    other.gateway.proxy.tasks.attend_all([held.id])
    await other.review(held)
    async with asyncio.timeout(HANG):
        while (await other.ask("tasks/get", {"taskId": task}, declares=TASKS)).result["status"] == "working":
            await asyncio.sleep(0)


async def play(gateways, first):
    """Make calls at both gateways that end in every way; then let all clients be gone."""
    a, b = gateways
    for n in range(first, first + CALLS):
        for number, end in enumerate((finish, deny, leave, finish_task)):
            await end(*((a, b) if n % 2 else (b, a)), 10 * n + number)
    async with asyncio.timeout(HANG):
        while any(one.gateway.service.presence.clients for one in gateways):
            await asyncio.sleep(0)
    a.clock.now += max(RENEW_EVERY, MIN_ATTENDED)
    for one in gateways:
        await one.gateway.service.sweep()


def sizes(gateways):
    return [container_sizes(one.gateway) for one in gateways]


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS.keys())
async def test_ended_calls_leave_nothing_in_memory(tmp_path, opener):
    async with two_gateways(await opener(tmp_path)) as gateways:
        await play(gateways, 0)
        before = sizes(gateways)
        await play(gateways, CALLS)
        grown = [
            (path, size)
            for old, new in zip(before, sizes(gateways), strict=True)
            for path, size in new.items()
            if size > old.get(path, 0) + CALLS // 2 and not path.endswith(LIMITED)
        ]
        assert grown == []
