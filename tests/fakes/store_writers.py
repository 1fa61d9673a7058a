"""A process to be killed: sixteen writers on one store, each printing every acknowledged write.

`python store_writers.py FILE ROUND`: prints a line `id version` after each acknowledged write.
"""

import asyncio
import os
import sys
from itertools import count

from approvals.lifecycle import advance, update
from approvals.model import State
from approvals.store.sqlite.store import SqliteStore
from store_fixtures import a_call, an_event

WRITERS = 16


def say(call):
    os.write(1, f"{call.id} {call.version}\n".encode())


def said(call):
    return an_event("hold.step", call=call.id, detail={"version": call.version, "state": call.state})


async def write(store, round_, writer):
    for number in count():
        call = a_call(
            (round_ * 1_000_000 + number) * WRITERS + writer,
            key=f"{round_} {writer} {number}",
            arguments=b"[0]" * 50,
        )
        await store.add(call, said(call))
        say(call)
        for step in (
            lambda held: update(held, task=True),
            lambda held: advance(held, State.APPROVED, 1.0),
            lambda held: advance(held, State.FORWARDING, 2.0),
            lambda held: advance(held, State.COMPLETED, 3.0),
        ):
            store.post(an_event("posted"))
            old, call = call, step(call)
            await store.swap(old, call, said(call))
            say(call)


async def main(path, round_):
    store = await SqliteStore.open(path, chain_key=b"key")
    async with asyncio.TaskGroup() as tasks:
        for writer in range(WRITERS):
            tasks.create_task(write(store, round_, writer))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
