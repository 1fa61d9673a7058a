"""The stores that the suite tests; add a new store here."""

from contextlib import asynccontextmanager

import pytest

from approvals.store.memory.store import MemoryStore
from approvals.store.sqlite.store import SqliteStore


@asynccontextmanager
async def memory(folder, **options):
    store = MemoryStore(**options)
    yield store
    await store.close()


@asynccontextmanager
async def sqlite(folder, **options):
    store = await SqliteStore.open(folder / "okayed.db", **options)
    yield store
    await store.close()


STORES = {"memory": memory, "sqlite": sqlite}


@pytest.fixture(params=STORES.values(), ids=STORES.keys())
async def open_store(request, tmp_path):
    return lambda **options: request.param(tmp_path, **options)


@pytest.fixture
async def store(open_store):
    async with open_store() as opened:
        yield opened
