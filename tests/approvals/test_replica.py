"""The lease of a replica."""

import pytest

from approval_fixtures import Clock
from approvals.clock import EffectiveClock
from approvals.errors import StoreError
from approvals.replica import LEASE, MARGIN, OVERDUE, RENEW_EVERY, Replica
from approvals.store.memory.store import MemoryStore

SLACK = "channel:slack"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def replicas(store, clock):
    return [Replica(store, clock) for _ in "ab"]


async def test_replicas_have_different_ids(replicas):
    a, b = replicas
    assert a.id != b.id


async def test_a_lease_is_renewed_only_when_a_part_of_it_is_over(replicas, store, clock):
    a, _ = replicas
    await a.renew()
    first = clock.now + LEASE
    clock.now += RENEW_EVERY - 1
    await a.renew()
    assert store._leases == {a.id: first}
    clock.now += 1
    await a.renew()
    assert store._leases == {a.id: first + RENEW_EVERY}


async def test_a_call_claimed_after_a_renewal_may_be_sent_for_a_while(replicas, clock):
    a, _ = replicas
    assert clock.now > a.send_before, "there is no lease yet"
    await a.renew()
    clock.now += RENEW_EVERY - 1
    await a.renew()
    assert a.send_before - clock.now > LEASE - RENEW_EVERY - MARGIN


async def test_one_replica_holds_a_lock_until_its_lease_ends(replicas, clock):
    a, b = replicas
    assert (await a.acquire(SLACK), await b.acquire(SLACK)) == (True, False)
    assert (a.holds(SLACK), b.holds(SLACK)) == (True, False)
    clock.now += LEASE - MARGIN
    assert not a.holds(SLACK), "it may be suspended before it posts"
    assert not await b.acquire(SLACK)
    clock.now += MARGIN
    assert await b.acquire(SLACK)
    assert not await a.acquire(SLACK)
    assert not a.holds(SLACK)


async def test_a_replica_that_renews_in_time_keeps_its_locks(replicas, clock):
    a, b = replicas
    for _ in range(10):
        assert (await a.acquire(SLACK), await b.acquire(SLACK)) == (True, False)
        clock.now += RENEW_EVERY


async def test_a_runner_is_lost_some_time_after_its_lease_ended(replicas, clock):
    a, b = replicas
    await a.renew()
    runners = frozenset({a.id, b.id, "an earlier process"})
    assert await b.find_lost(runners) == {"an earlier process"}, "without a row there is nothing to wait for"
    for _ in range(int(LEASE + OVERDUE - 1)):
        await b.renew()
        clock.now += 1
        assert await b.find_lost(runners) == {"an earlier process"}
    clock.now += 1
    assert await b.find_lost(runners) == {a.id, "an earlier process"}
    assert a.id not in await a.find_lost(runners), "a replica never takes itself for lost"


async def test_the_end_of_a_replica_releases_its_locks_at_once(replicas):
    a, b = replicas
    await a.acquire(SLACK)
    await a.end()
    assert await b.acquire(SLACK)
    assert not a.holds(SLACK)


async def test_two_replicas_never_hold_a_lock_after_the_machine_slept(store):
    """On Linux the monotonic clock stands still while the machine sleeps."""
    wall = Clock()
    a, b = (Replica(store, EffectiveClock(wall, lambda: 1000.0)) for _ in "ab")
    await a.acquire(SLACK)
    wall.now += LEASE
    assert await b.acquire(SLACK)
    assert (a.holds(SLACK), b.holds(SLACK)) == (False, True)
    assert (await a.acquire(SLACK), a.holds(SLACK)) == (False, False)


class FullDisk(MemoryStore):
    async def renew_replica(self, replica, now, until):
        raise StoreError("The disk is full.")


async def test_a_lease_that_could_not_be_written_does_not_last(clock):
    replica = Replica(FullDisk(), clock)
    with pytest.raises(StoreError):
        await replica.acquire(SLACK)
    assert not replica.holds(SLACK)
