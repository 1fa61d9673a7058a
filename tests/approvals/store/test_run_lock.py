"""The lock that a `run` holds while it lives."""

import asyncio
import sys

import pytest

from approvals.errors import StoreError, StoreTaken
from approvals.store.run_lock import hold_run_lock, is_held_by_run


def test_a_run_holds_the_lock_until_it_ends(tmp_path):
    store = tmp_path / "okayed.db"
    assert not is_held_by_run(store)
    with hold_run_lock(store):
        assert is_held_by_run(store)
        with pytest.raises(StoreTaken, match=r"Another `okayed run` uses .*okayed\.db\. Stop it"):
            with hold_run_lock(store):
                pass
        assert is_held_by_run(store)
    assert not is_held_by_run(store)
    with hold_run_lock(store):
        assert (tmp_path / "okayed.db.run").stat().st_mode & 0o777 == 0o600


async def test_the_lock_ends_with_the_process_however_that_ends(tmp_path):
    store = tmp_path / "okayed.db"
    code = f"from pathlib import Path; from approvals.store.run_lock import hold_run_lock\nwith hold_run_lock(Path({str(store)!r})): print(flush=True); input()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    await process.stdout.readline()
    assert is_held_by_run(store)
    process.kill()
    await process.wait()
    assert not is_held_by_run(store)


def test_looking_at_the_lock_does_not_stop_a_run(tmp_path):
    store = tmp_path / "okayed.db"
    with hold_run_lock(store):
        pass
    for _ in range(100):
        assert not is_held_by_run(store)
        with hold_run_lock(store):
            pass


def test_a_missing_folder_is_reported_in_one_sentence(tmp_path):
    with (
        pytest.raises(StoreError, match="cannot be written to"),
        hold_run_lock(tmp_path / "nowhere" / "okayed.db"),
    ):
        pass
