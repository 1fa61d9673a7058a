"""The filter knows every key in the file: of any sequence of adds, refused adds and reopenings, also while it is filled."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals.errors import Conflict, StoreError
from approvals.lifecycle import advance
from approvals.model import State
from approvals.store.sqlite import statements
from approvals.store.sqlite.key_filter import SIZE, KeyFilter
from approvals.store.sqlite.reader import MAX_WAITING
from approvals.store.sqlite.store import SqliteStore
from store_fixtures import a_call, an_event

KEYS = st.one_of(
    st.integers(0, 7).map(lambda n: f"{n:064x}"), st.text("0123456789abcdef", min_size=64, max_size=64)
)
#: Rounds of keys that are added together: at once after the opening or after the fill, with room in the file or without.
ROUNDS = st.lists(st.tuples(st.lists(KEYS, min_size=1, max_size=6), st.booleans(), st.booleans()), max_size=4)


async def add(store, key):
    try:
        await store.add(call := a_call(key=key), an_event())
        await store.swap(call, advance(call, State.DENIED, 1.0))
    except (Conflict, StoreError):
        return


async def look(store):
    """Find every key that the file has."""
    for call in (await store.select()).items:
        assert (await store.find(call.key)).key == call.key


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(ROUNDS)
def test_every_key_in_the_file_is_found(rounds):
    async def run():
        with tempfile.TemporaryDirectory() as folder:
            for keys, filled, full in rounds:
                store = await SqliteStore.open(Path(folder) / "okayed.db")
                if filled:
                    await store._filling
                if full:
                    await store.writer.do(limit_pages)
                await asyncio.gather(*(add(store, key) for key in keys), look(store))
                await look(store)
                await store._filling
                await look(store)
                assert all(call.key in store._keys for call in (await store.select()).items)
                await store.close()

    asyncio.run(run())


def limit_pages(db):
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count={pages}")


async def test_a_fill_of_several_parts_adds_every_key(tmp_path, monkeypatch):
    monkeypatch.setattr(statements, "KEY_PREFIXES", statements.KEY_PREFIXES.replace("1000", "3"))
    store = await SqliteStore.open(tmp_path / "okayed.db")
    keys = [f"{n // 2:064x}" if n % 2 else f"{n // 2:016x}" + "f" * 48 for n in range(40)]
    await asyncio.gather(*(add(store, key) for key in keys))
    await store.close()
    store = await SqliteStore.open(tmp_path / "okayed.db")
    assert "not there" in store._keys, "before the fill, the file may have any key"
    while not store._filling.done():
        assert all(key in store._keys for key in keys)
        await asyncio.sleep(0)
    assert all(key in store._keys for key in keys)
    assert "not there" not in store._keys
    await store.close()


async def test_if_the_keys_cannot_be_read_every_search_reads_the_file(tmp_path):
    store = await SqliteStore.open(tmp_path / "okayed.db")
    await add(store, "k" * 64)
    await store.close()
    store = await SqliteStore.open(tmp_path / "okayed.db")
    store.reader._waiting += MAX_WAITING  # so it refuses more
    await store._filling
    store.reader._waiting -= MAX_WAITING
    assert "not there" in store._keys
    assert (await store.find("k" * 64)).key == "k" * 64
    await store.close()


def test_few_absent_keys_are_taken_for_stored_ones():
    keys = KeyFilter()
    keys.add(f"{n:016x}" for n in range(SIZE // 20))
    keys.complete()
    assert sum(f"{n:016x}" in keys for n in range(1 << 40, (1 << 40) + 10_000)) < 20
