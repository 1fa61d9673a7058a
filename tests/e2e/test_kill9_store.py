"""Sixteen writers on one file are killed repeatedly: every acknowledged write is kept.

OKAYED_SOAK sets the number of rounds.
"""

import asyncio
import os
import random
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from approvals.store.sqlite.store import SqliteStore
from history import History
from history_checks import STORE_CHECKS, assert_no_faults
from run_log import all_calls

ROUNDS = int(os.environ.get("OKAYED_SOAK", "6"))
FAKES = Path(__file__).parent.parent / "fakes"
#: The most acknowledgements read before the kill; by then the process has written more.
MOST = 1500


async def killed(path, round_, after):
    """Start the writers, kill them after *after* acknowledgements, and return every acknowledged version by id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, FAKES / "store_writers.py", path, str(round_),
        stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(FAKES.parent.parent)},
    )  # fmt: skip
    lines = [await process.stdout.readline() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    lines += (await process.stdout.read()).splitlines(keepends=True)
    assert await process.wait() == -signal.SIGKILL
    words = [line.decode().split() for line in lines if line.endswith(b"\n")]
    return {call_id: int(version) for call_id, version in words}


def sound(path):
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_acknowledged_writes_survive_kill_9(tmp_path):
    path = tmp_path / "okayed.db"
    chance = random.Random()
    acked, known, heads = {}, 0, []
    async with asyncio.timeout(20 + 10 * ROUNDS):
        for round_ in range(ROUNDS):
            acked |= await killed(path, round_, chance.randrange(1, MOST))
            # As if the file were large: after a kill it is checked in the background.
            store = await SqliteStore.open(path, chain_key=b"key", max_checked_at_start=0)
            await asyncio.to_thread(store._page_check._thread.join)
            calls, events = await all_calls(store), await store.events(limit=100_000_000)
            head = await store.head()
            await store.close()
            found = History(
                calls=calls, events=events, acknowledged=list(acked.items()), heads=heads, chain_key=b"key"
            )
            assert_no_faults(found, STORE_CHECKS)
            assert head.seq == len(events) > known
            known, heads = len(events), [head]
            assert sound(path)
    print(f"{ROUNDS} kills, {len(acked)} calls and {known} events acknowledged or found, none lost")
