"""`okayed run`: the gateway in the foreground, until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from approvals.errors import StoreTaken
from approvals.store import Store
from approvals.store.run_lock import hold_run_lock
from gateway.app.config import load_config
from gateway.app.gateway import GRACE, Gateway, assemble
from gateway.app.reloading import read_version, watch_config
from gateway.app.serving import serve
from gateway.app.stores import MEMORY, open_store, store_path
from gateway.config.options import Config

#: Seconds to wait until an embedded gateway releases the store: more than it gives running calls.
HANDOVER = GRACE + 10.0
#: Seconds between two attempts to open the store.
RETRY = 0.2
#: The signals that stop the gateway.
SIGNALS = (signal.SIGTERM, signal.SIGINT)
log = logging.getLogger("okayed")


async def run(path: Path, *, restored: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; *restored* treats the store as a restored copy."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    loaded = read_version(path)  # before it is read, so that no change is missed
    config = load_config(path, os.environ)
    with hold_store(config):
        await _serve(config, partial(watch_config, path, loaded=loaded), stop, restored=restored)
    log.info("stopped")


def hold_store(config: Config) -> AbstractContextManager[None]:
    """Hold the store's run lock, so that an embedded gateway releases the store.

    Raises `StoreTaken` if another `okayed run` has the lock.
    """
    return nullcontext() if config.store == MEMORY else hold_run_lock(store_path(config.store))


async def open_released_store(config: Config, *, stop: asyncio.Event, restored: bool = False) -> Store:
    """Open the store as soon as an embedded gateway has released it; raises `StoreError`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + HANDOVER
    while True:
        try:
            return await open_store(config, restored=restored)
        except StoreTaken:
            if stop.is_set() or loop.time() >= until:
                raise
        await asyncio.sleep(RETRY)


async def _serve(
    config: Config,
    watch: Callable[[Gateway], Coroutine[Any, Any, None]],
    stop: asyncio.Event,
    *,
    restored: bool,
) -> None:
    loop = asyncio.get_running_loop()
    opener = partial(open_released_store, stop=stop)
    async with (
        assemble(config, restored=restored, opener=opener) as gateway,
        serve(gateway) as endpoints,
    ):
        log.info("agents: %s   inbox: %s", endpoints.agents, endpoints.inbox)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch(gateway))
            await stop.wait()
            watching.cancel()
        for number in SIGNALS:
            loop.remove_signal_handler(number)  # a second signal ends the process at once
        log.info("stopping; running calls get %.0f s", GRACE)
