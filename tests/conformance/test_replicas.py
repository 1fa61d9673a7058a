"""Guarantees of every store about the replicas that share it."""

import asyncio

from approvals.store import ENDED_LEASE_LIFE
from store_fixtures import a_call


async def test_a_replica_is_live_until_its_lease_ends(store):
    await store.renew_replica("a", 100.0, 130.0)
    await store.renew_replica("b", 110.0, 140.0)
    assert await store.live_replicas(129.9) == {"a", "b"}
    assert await store.live_replicas(130.0) == {"b"}
    await store.renew_replica("a", 131.0, 161.0)
    assert await store.live_replicas(140.0) == {"a"}


async def test_one_of_many_replicas_acquires_a_lock(store):
    replicas = [f"r{number}" for number in range(20)]
    for replica in replicas:
        await store.renew_replica(replica, 100.0, 130.0)
    acquired = await asyncio.gather(
        *(store.acquire_lock("channel:slack", replica, 100.0) for replica in replicas)
    )
    assert acquired.count(True) == 1
    holder = replicas[acquired.index(True)]
    assert await store.acquire_lock("channel:slack", holder, 101.0)
    assert await store.acquire_lock("channel:other", "r7", 101.0)
    assert "channel:slack" in await store.renew_replica(holder, 102.0, 132.0)


async def test_a_lock_is_free_when_the_lease_of_its_holder_ends(store):
    await store.renew_replica("a", 100.0, 130.0)
    assert await store.acquire_lock("channel:slack", "a", 100.0)
    await store.renew_replica("b", 129.0, 159.0)
    assert not await store.acquire_lock("channel:slack", "b", 129.9)
    assert await store.acquire_lock("channel:slack", "b", 130.0)
    assert await store.renew_replica("a", 131.0, 161.0) == frozenset()
    assert not await store.acquire_lock("channel:slack", "a", 131.0)


async def test_a_replica_that_ends_frees_everything(store):
    await store.renew_replica("a", 100.0, 130.0)
    await store.renew_replica("b", 100.0, 130.0)
    assert await store.acquire_lock("channel:slack", "a", 100.0)
    await store.save_presence("a", ["hold_1", "hold_2"], [])
    await store.save_presence("b", ["hold_2"], [])
    await store.check()
    await store.end_replica("a")
    assert await store.live_replicas(101.0) == {"b"}
    assert await store.acquire_lock("channel:slack", "b", 101.0)
    assert await store.find_attended(["hold_1", "hold_2"], 101.0) == {"hold_2"}


async def test_a_call_is_attended_while_a_client_waits_at_a_live_replica(store):
    await store.renew_replica("a", 100.0, 130.0)
    await store.renew_replica("b", 110.0, 140.0)
    await store.save_presence("a", ["hold_1", "hold_2"], [])
    await store.save_presence("b", ["hold_2", "hold_3"], [])
    await store.check()
    asked = ["hold_1", "hold_2", "hold_3", "hold_4"]
    assert await store.find_attended(asked, 120.0) == {"hold_1", "hold_2", "hold_3"}
    assert await store.find_attended(asked, 135.0) == {"hold_2", "hold_3"}
    assert await store.find_attended([], 120.0) == frozenset()
    await store.save_presence("b", ["hold_3"], ["hold_2"])
    await store.check()
    assert await store.find_attended(asked, 135.0) == {"hold_3"}


async def test_presence_is_neither_an_event_nor_a_version(store):
    call = a_call()
    await store.add(call)
    before = await store.events()
    await store.renew_replica("a", 100.0, 130.0)
    await store.save_presence("a", [call.id], [])
    await store.check()
    assert await store.find_attended([call.id], 100.0) == {call.id}
    assert await store.version(call.id) == call.version
    assert await store.events() == before


async def test_leases_that_ended_long_ago_are_dropped(store):
    await store.renew_replica("a", 100.0, 130.0)
    await store.acquire_lock("channel:slack", "a", 100.0)
    await store.renew_replica("b", 130.0 + ENDED_LEASE_LIFE - 1, 9e9)
    assert await store.live_replicas(0.0) == {"a", "b"}
    await store.renew_replica("b", 130.0 + ENDED_LEASE_LIFE, 9e9)
    assert await store.live_replicas(0.0) == {"b"}
