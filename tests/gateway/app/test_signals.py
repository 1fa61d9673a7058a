"""A gateway reads the accepted tool definitions again: when it begins to listen, after a signal, after a failure."""

import asyncio

import pytest

from approvals.errors import StoreError
from approvals.store.memory.store import MemoryStore
from gateway.app import serving, signals
from hang import HANG
from two_gateways import two_gateways


class FaultyStore(MemoryStore):
    """Its pins cannot be read while it has faults; each read removes one."""

    faults = 0

    async def pins(self):
        if self.faults:
            self.faults -= 1
            raise StoreError("The disk is full.")
        return await super().pins()


@pytest.fixture
async def gateways(monkeypatch):
    """Two gateways that follow no signals."""
    monkeypatch.setattr("gateways.follow_signals", lambda _: asyncio.sleep(0))
    monkeypatch.setattr(signals, "RETRY", 0.0)
    async with two_gateways(FaultyStore()) as both:
        yield [one.gateway for one in both]


async def accept(gateway):
    """Accept another definition of a tool."""
    await gateway.catalogue.refresh("notes")
    gateway._pins.accept("notes", "get_note", b"{}")


async def until_accepted(gateway):
    """Wait until that definition is the accepted one."""
    while gateway.catalogue.listed_tool("notes", "get_note").accepted != b"{}":
        await asyncio.sleep(0)


@pytest.mark.parametrize("faults", [0, 3])
async def test_a_definition_accepted_before_a_gateway_listened_is_read(gateways, faults):
    a, b = gateways
    await a.catalogue.refresh("notes")
    await accept(b)
    b.store._store.faults = faults
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(signals.follow_signals(a))
        await until_accepted(a)
        following.cancel()


async def test_a_gateway_that_serves_follows_signals(gateways):
    a, b = gateways
    async with asyncio.timeout(HANG), serving.run_loops(a, [], ""):
        await a.catalogue.refresh("notes")
        for _ in range(100):  # the first read of the pins is done
            await asyncio.sleep(0)
        await accept(b)
        await until_accepted(a)
