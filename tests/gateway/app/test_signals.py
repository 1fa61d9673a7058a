"""A gateway reads the accepted tool definitions again: when it begins to listen, and until a read succeeds."""

import asyncio

import pytest

from approvals.errors import StoreError
from approvals.store.memory import MemoryStore
from gateway.app import signals
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


@pytest.mark.parametrize("faults", [0, 3])
async def test_a_definition_accepted_before_a_gateway_listened_is_read(gateways, faults):
    a, b = gateways
    for gateway in gateways:
        await gateway.catalogue.refresh("notes")
    pinned = a.catalogue.listed_tool("notes", "get_note")
    b._pins.accept("notes", "get_note", b"{}")
    b.store._store.faults = faults
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(signals.follow_signals(a))
        while a.catalogue.listed_tool("notes", "get_note") == pinned:
            await asyncio.sleep(0)
        following.cancel()
    assert a.catalogue.listed_tool("notes", "get_note").accepted == b"{}"
