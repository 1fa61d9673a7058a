"""Wakeups reach every listener of a call, and leave no state behind."""

import asyncio

import pytest

from approval_fixtures import held
from approvals.signals import Signal
from approvals.store.memory.store import MemoryStore
from approvals.wakeups import Wakeups
from hang import HANG


async def test_the_listeners_of_a_call_are_woken_and_no_others():
    waiters = Wakeups()
    with waiters.listen("a") as one, waiters.listen("a") as two, waiters.listen("b") as other:
        waiters.wake("a")
        assert (one.is_set(), two.is_set(), other.is_set()) == (True, True, False)
    waiters.wake("a")
    assert not waiters.listening


async def test_each_change_of_the_store_wakes_its_listeners():
    waiters, store = Wakeups(), MemoryStore()
    following = asyncio.ensure_future(waiters.follow(store))
    await asyncio.sleep(0)
    call = held(0.0)
    with waiters.listen(call.id) as woken:
        await store.add(call)
        async with asyncio.timeout(HANG):
            await woken.wait()
    await store.close()
    await following


@pytest.mark.parametrize("kind", ["resync", "freeze", "a kind of a newer version"])
async def test_every_listener_is_woken_when_signals_may_be_lost(kind):
    waiters, store = Wakeups(), MemoryStore()
    following = asyncio.ensure_future(waiters.follow(store))
    await asyncio.sleep(0)
    with waiters.listen("a") as one, waiters.listen("b") as other:
        for signal in (
            Signal("presence"),
            Signal("pin", "a"),
            Signal("cancel", "a"),
            Signal("logout", "a"),
            Signal("call", "b"),
        ):
            store.announce(signal)
        async with asyncio.timeout(HANG):
            await other.wait()
        assert not one.is_set()
        store.announce(Signal(kind))
        async with asyncio.timeout(HANG):
            await one.wait()
    await store.close()
    await following


async def test_all_listeners_can_be_woken_at_once():
    waiters = Wakeups()
    with waiters.listen("a") as one, waiters.listen("b") as other:
        waiters.wake_all()
        assert one.is_set()
        assert other.is_set()
