"""Guarantees of every store about signals: each follows its commit and reaches every listener."""

import asyncio

import pytest

from approvals.errors import Conflict
from approvals.lifecycle import update
from approvals.model import LoginSession, Pin
from approvals.signals import Signal, SignalKind
from hang import HANG
from store_fixtures import a_call, an_event


def changed(call):
    return Signal(SignalKind.CALL, call.id)


def a_pin(server="iam"):
    return Pin(server=server, tool="get_user", hash="h", definition=b"{}", identity="i")


async def receive(listener, number):
    async with asyncio.timeout(HANG):
        return [await anext(listener) for _ in range(number)]


async def test_every_listener_gets_every_signal(store):
    one, two = store.signals(), store.signals()
    call, other = a_call(), a_call()
    await store.add(call)
    await store.swap(call, update(call))
    await store.add(other)
    assert await receive(one, 3) == await receive(two, 3) == [changed(call), changed(call), changed(other)]


async def test_a_call_is_signalled_when_its_change_can_be_read(store):
    listener = store.signals()

    async def follow():
        for least in (1, 2, 3):
            assert (await store.get((await anext(listener)).subject)).version >= least

    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        await store.add(call := a_call())
        for _ in range(2):
            await store.swap(call, call := update(call))


async def test_a_change_of_presence_is_signalled_when_it_can_be_read(store):
    listener = store.signals()
    await store.renew_replica("a", 100.0, 130.0)
    await store.save_presence("a", ["hold_1"], [])
    assert await anext(listener) == Signal(SignalKind.PRESENCE)
    assert await store.find_attended(["hold_1"], 100.0) == {"hold_1"}
    await store.end_replica("a")
    assert await anext(listener) == Signal(SignalKind.PRESENCE)
    assert await store.find_attended(["hold_1"], 100.0) == frozenset()


async def test_a_failed_change_is_not_signalled(store):
    listener = store.signals()
    await store.add(call := a_call())
    with pytest.raises(Conflict):
        await store.add(a_call(key=call.key))
    with pytest.raises(Conflict):
        await store.swap(update(call), call)
    await store.append(an_event())
    await store.add(last := a_call())
    assert await receive(listener, 2) == [changed(call), changed(last)]


async def test_a_change_of_a_cancelled_caller_is_complete_or_absent(store):
    calls = [a_call() for _ in range(40)]
    for call in calls:
        await store.add(call)
    listener = store.signals()
    tasks = [
        asyncio.ensure_future(store.swap(call, update(call, note="n"), an_event(call=call.id)))
        for call in calls
    ]
    for rounds, task in enumerate(tasks):
        for _ in range(rounds % 4):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.check()
    swapped = [call for call in calls if (await store.get(call.id)).version == 2]
    assert [event.call for event in await store.events()] == [call.id for call in swapped]
    assert await receive(listener, len(swapped)) == list(map(changed, swapped))


async def test_a_pin_is_signalled_when_it_can_be_read(store):
    listener = store.signals()
    for server in ("iam", "notes"):
        store.save_pin(a_pin(server))
    for number, server in enumerate(("iam", "notes"), 1):
        assert await receive(listener, 1) == [Signal(SignalKind.PIN, server)]
        assert len(await store.pins()) >= number


async def test_a_logout_is_signalled_when_the_login_is_gone(store):
    await store.save_login(
        LoginSession(id_sha256="s1", approver="alice", created_at=10.0, expires_at=100.0, seen_at=10.0)
    )
    listener = store.signals()

    async def follow():
        assert await anext(listener) == Signal(SignalKind.LOGOUT, "s1")
        assert await store.find_login("s1") is None

    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        await store.delete_login("s1")


async def test_an_announced_signal_reaches_every_listener_unchanged(store):
    one, two = store.signals(), store.signals()
    sent = [Signal(SignalKind.CANCEL, "a key", origin="r1"), Signal("a kind of a newer version")]
    for signal in sent:
        store.announce(signal)
    assert await receive(one, 2) == await receive(two, 2) == sent


async def test_closing_the_store_ends_every_listener_after_its_signals(open_store):
    async with open_store() as store:
        idle, waiting = store.signals(), store.signals()
        following = asyncio.ensure_future(anext(waiting, "the end"))
        await asyncio.sleep(0)
        await store.add(call := a_call())
    async with asyncio.timeout(HANG):
        assert [signal async for signal in idle] == [changed(call)]
        assert [await following, await anext(waiting, "the end")] == [changed(call), "the end"]
        assert [signal async for signal in store.signals()] == []
