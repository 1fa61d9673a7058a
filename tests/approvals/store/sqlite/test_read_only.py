"""A store's file, read beside a gateway that may be writing it."""

import sqlite3
from contextlib import closing

import pytest

from approvals.errors import StoreError
from approvals.model import Pin
from approvals.store.sqlite.read_only import ReadOnlyStore
from approvals.store.sqlite.store import SqliteStore
from store_fixtures import an_event


@pytest.fixture
def path(tmp_path):
    return tmp_path / "okayed.db"


async def test_a_reader_sees_each_commit_of_a_running_gateway(path):
    store, reader = await SqliteStore.open(path), ReadOnlyStore(path)
    assert (await reader.events(), await reader.head()) == ([], None)
    await store.append(an_event("one"), an_event("two", agent="ci"))
    assert await reader.events() == await store.events()
    assert await reader.head() == await store.head()
    await store.append(an_event("three", agent="ci"))
    assert [event.kind for event in await reader.events(after=1, limit=1)] == ["two"]
    found = await reader.search_events(after=1, agent="ci", limit=1)
    assert found == await store.search_events(after=1, agent="ci", limit=1)
    assert ([event.kind for event in found.events], found.next) == (["two"], 2)
    await store.close()
    assert [event.kind for event in await reader.events(after=2)] == ["three"]


async def test_a_reader_returns_the_accepted_definitions(path):
    pin = Pin(server="iam", tool="put", hash="h", definition=b"{}")
    store = await SqliteStore.open(path)
    store.save_pin(pin)
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("ALTER TABLE pins DROP COLUMN identity")  # as an older version left it
    assert await ReadOnlyStore(path).pins() == [pin]


async def test_a_missing_file_has_no_pins_and_its_trail_cannot_be_read(path):
    reader = ReadOnlyStore(path)
    assert await reader.pins() == []
    for read in (reader.events, reader.head):
        with pytest.raises(StoreError, match="has no readable audit trail"):
            await read()
    assert list(path.parent.iterdir()) == []
