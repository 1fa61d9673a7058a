"""The feed of a process: a slow listener's queue is bounded, and a dropped listener leaves no state."""

import asyncio
import gc

from approvals.signals import Signal, SignalKind
from approvals.store import signal_feed
from approvals.store.signal_feed import SignalFeed
from hang import HANG

RESYNC = Signal(SignalKind.RESYNC)


def call(number):
    return Signal(SignalKind.CALL, f"hold_{number}")


async def rest(feed, listener):
    feed.close()
    async with asyncio.timeout(HANG):
        return [signal async for signal in listener]


async def test_too_many_waiting_signals_are_replaced_by_one_resync(monkeypatch):
    monkeypatch.setattr(signal_feed, "MAX_QUEUED", 3)
    feed = SignalFeed()
    slow, quick = feed.listen(), feed.listen()
    read = []
    for number in range(5):
        feed.publish(call(number))
        read.append(await anext(quick))
    assert read == [call(number) for number in range(5)]
    assert await rest(feed, slow) == [RESYNC, call(4)]


async def test_the_queue_of_a_slow_listener_never_exceeds_the_limit():
    feed = SignalFeed()
    slow = feed.listen()
    for number in range(2 * signal_feed.MAX_QUEUED):
        feed.publish(call(number))
        assert len(slow._signals) <= signal_feed.MAX_QUEUED
    kept = await rest(feed, slow)
    assert kept.count(RESYNC) == 1
    assert kept[-1] == call(2 * signal_feed.MAX_QUEUED - 1)


async def test_a_listener_that_is_dropped_leaves_nothing_behind():
    feed = SignalFeed()
    listener = feed.listen()
    feed.publish(call(1))
    del listener
    gc.collect()
    assert not feed._queues


async def test_a_listener_that_starts_after_the_end_has_nothing_to_wait_for():
    feed = SignalFeed()
    feed.close()
    assert [signal async for signal in feed.listen()] == []
