"""Presence: the calls for which clients wait, at any of the replicas that share a store."""

import pytest

from approval_fixtures import Clock, directory, held
from approvals.errors import StoreError
from approvals.presence import MIN_ATTENDED
from approvals.replica import LEASE
from approvals.service import ApprovalService
from approvals.store import ENDED_LEASE_LIFE
from approvals.store.memory.store import MemoryStore


class CountingStore(MemoryStore):
    """A store that records the changes of presence, and counts how often it is asked for it."""

    def __init__(self):
        super().__init__()
        self.saved, self.asked, self.failing = [], 0, False

    async def save_presence(self, replica, added, removed):
        if self.failing:
            raise StoreError("The disk is full.")
        self.saved.append((replica, list(added), list(removed)))
        await super().save_presence(replica, added, removed)

    async def find_attended(self, calls, now):
        self.asked += 1
        return await super().find_attended(calls, now)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store():
    return CountingStore()


@pytest.fixture
def replicas(store, clock):
    """Two services on one store."""
    return [ApprovalService(store, directory(), clock=clock) for _ in "ab"]


async def a_call(service, **fields):
    """Hold a call, and return it when it is no longer new."""
    call = await service.hold(held(service.clock.now, **fields))
    service.clock.now += MIN_ATTENDED
    return call


async def test_a_new_call_is_attended_before_the_first_sweep(replicas, clock):
    a, b = replicas
    call = await a.hold(held(clock.now))
    assert await a.find_attended([call]) == await b.find_attended([call]) == {call.id}
    clock.now += MIN_ATTENDED
    assert await a.find_attended([call]) == await b.find_attended([call]) == frozenset()


async def test_a_client_that_waits_here_is_known_at_once_and_at_another_replica_after_a_sweep(replicas):
    a, b = replicas
    call = await a_call(a)
    with a.attend(call.id):
        assert (await a.find_attended([call]), await b.find_attended([call])) == ({call.id}, frozenset())
        await a.sweep()
        assert await b.find_attended([call]) == {call.id}


async def test_a_call_is_attended_until_its_last_client_leaves(replicas, clock):
    a, b = replicas
    call = await a_call(a)
    with a.attend(call.id), b.attend(call.id):
        with a.attend(call.id):
            await a.sweep()
            await b.sweep()
        clock.now += MIN_ATTENDED
        await a.sweep()
        assert await b.find_attended([call]) == {call.id}
    await a.sweep()
    assert await a.find_attended([call]) == {call.id}, "replica b has not said that its client left"
    await b.sweep()
    assert await a.find_attended([call]) == frozenset()


async def test_a_client_that_leaves_at_once_and_comes_back_changes_the_presence_once(replicas, store, clock):
    a, _ = replicas
    call = await a_call(a)
    for _ in range(5):
        with a.attend(call.id):
            pass
        await a.sweep()
        clock.now += 1
    assert store.saved == [(a.replica.id, [call.id], [])]
    clock.now += MIN_ATTENDED
    await a.sweep()
    assert store.saved[1:] == [(a.replica.id, [], [call.id])]


async def test_a_sweep_writes_only_changes_and_all_of_them_at_once(replicas, store):
    a, _ = replicas
    one, two = await a_call(a, tool="one"), await a_call(a, tool="two")
    await a.sweep()
    assert store.saved == []
    with a.attend(one.id), a.attend(two.id):
        await a.sweep()
        await a.sweep()
    assert store.saved == [(a.replica.id, sorted([one.id, two.id]), [])]


async def test_clients_that_could_not_be_saved_are_saved_by_the_next_sweep(replicas, store, clock):
    a, b = replicas
    left, came, stays = [await a_call(a, arguments=b'{"n":%d}' % n) for n in range(3)]
    with a.attend(stays.id):
        with a.attend(left.id):
            await a.sweep()
        clock.now += MIN_ATTENDED
        with a.attend(came.id):
            store.failing = True
            with pytest.raises(StoreError):
                await a.sweep()
            store.failing = False
            await a.sweep()
            assert await b.find_attended([left, came, stays]) == {came.id, stays.id}
        store.saved.clear()
        clock.now += MIN_ATTENDED
        await a.sweep()
        assert store.saved == [(a.replica.id, [], [came.id])]


async def test_the_clients_of_a_replica_are_gone_when_its_lease_ends(replicas, clock):
    a, b = replicas
    call = await a_call(a)
    with a.attend(call.id):
        await a.sweep()
        clock.now += LEASE - 1
        assert await b.find_attended([call]) == {call.id}
        clock.now += 1
        assert await b.find_attended([call]) == frozenset()


async def test_after_a_lapse_of_its_lease_a_replica_saves_all_its_clients_again(replicas, clock):
    a, b = replicas
    stays, leaves = await a_call(a, tool="stays"), await a_call(a, tool="leaves")
    with a.attend(stays.id):
        with a.attend(leaves.id):
            await a.sweep()
        clock.now += LEASE + ENDED_LEASE_LIFE
        await b.sweep()  # forgets replica a, with its clients
        await a.sweep()
        assert await b.find_attended([stays, leaves]) == {stays.id}


async def test_a_list_of_calls_asks_the_store_once_and_not_for_calls_whose_client_is_here(replicas, store):
    a, _ = replicas
    calls = [await a_call(a, tool=f"t{n}") for n in range(5)]
    await a.find_attended(calls)
    assert store.asked == 1
    with a.attend(calls[0].id):
        assert await a.find_attended(calls[:1]) == {calls[0].id}
    assert store.asked == 1


async def test_presence_changes_no_version_and_is_not_an_audit_event(replicas, store, clock):
    a, _ = replicas
    call = await a_call(a)
    events = await store.events()
    with a.attend(call.id):
        await a.sweep()
    clock.now += MIN_ATTENDED
    await a.sweep()
    assert await store.version(call.id) == call.version
    assert await store.events() == events


async def test_a_lease_that_lapses_while_the_clients_are_saved_is_noticed(replicas, store, clock):
    a, b = replicas
    call = await a_call(a)
    await a.sweep()
    save = store.save_presence

    async def lapse(replica, added, removed):
        store.save_presence = save
        await save(replica, added, removed)
        clock.now += LEASE + ENDED_LEASE_LIFE
        await b.sweep()  # forgets replica a, with its clients
        await a.replica.renew()

    store.save_presence = lapse
    with a.attend(call.id):
        await a.sweep()
        await a.sweep()
        assert await b.find_attended([call]) == {call.id}
