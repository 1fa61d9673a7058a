"""The reconciler of the channels: each shows the newest version, independently of the others."""

import asyncio
from contextlib import asynccontextmanager

from approval_fixtures import Clock, directory, held
from approvals import notices
from approvals.notices import Notices
from approvals.service import ApprovalService
from approvals.signals import Signal
from approvals.store.memory import MemoryStore
from approvals.store.signal_feed import SignalFeed
from hang import HANG


class Shown:
    """A channel that shows everything at once."""

    def __init__(self, name):
        self.name = name
        self.posted = asyncio.Queue()

    async def post(self, card):
        self.posted.put_nowait(card.id)
        return card.id


class Stuck(Shown):
    """A channel that never finishes its first card."""

    async def post(self, card):
        await super().post(card)
        await asyncio.Event().wait()


@asynccontextmanager
async def going_round(*channels):
    clock = Clock()
    service = ApprovalService(MemoryStore(), directory(), clock=clock)
    running = asyncio.ensure_future(Notices(service, service.store, channels, url="").run())
    try:
        async with asyncio.timeout(HANG):
            yield service, clock
    finally:
        running.cancel()
        await service.store.close()


async def test_a_slow_channel_does_not_delay_another():
    stuck, quick = Stuck("stuck"), Shown("quick")
    async with going_round(stuck, quick) as (service, clock):
        first = await service.hold(held(clock.now))
        assert (await stuck.posted.get(), await quick.posted.get()) == (first.id, first.id)
        second = await service.hold(held(clock.now, tool="other"))
        assert await quick.posted.get() == second.id


async def test_a_channel_is_updated_when_signals_may_be_lost(monkeypatch):
    monkeypatch.setattr(notices, "ROUND", 2 * HANG)
    shown = Shown("shown")
    async with going_round(shown) as (service, clock):
        first = await service.hold(held(clock.now))
        assert await shown.posted.get() == first.id
        feed, service.store._feed = service.store._feed, SignalFeed()
        second = await service.hold(held(clock.now, tool="other"))
        service.store._feed = feed
        service.store.announce(Signal("logout", "a session"))
        service.store.announce(Signal("resync"))
        assert await shown.posted.get() == second.id
