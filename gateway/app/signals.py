"""Follows the signals of the replicas that share the gateway's store."""

import asyncio
import logging

from approvals.errors import StoreError
from approvals.problem_log import ProblemLog
from approvals.signals import Signal, SignalKind, follow
from gateway.app.gateway import Gateway

#: Seconds until the pins are reloaded after the store failed.
RETRY = 1.0
log = logging.getLogger("okayed")


async def follow_signals(gateway: Gateway) -> None:
    """Act on the signals of other replicas until the store closes."""
    pins_changed = asyncio.Event()

    def reload_pins(_signal: Signal) -> None:
        pins_changed.set()

    actions = {
        SignalKind.CANCEL: gateway.proxy.act_on_cancel,
        SignalKind.PIN: reload_pins,
        SignalKind.RESYNC: reload_pins,
    }
    signals = gateway.store.signals()
    pins_changed.set()  # a pin may have changed before this gateway listened
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.service.wakeups.follow(gateway.store))
        reader = tasks.create_task(_reload_pins(gateway, pins_changed))
        await follow(signals, actions)
        reader.cancel()


async def _reload_pins(gateway: Gateway, changed: asyncio.Event) -> None:
    """Read the pins after each change; after changes during a read, once more."""
    problems = ProblemLog(log, "the reload of accepted tool definitions")
    while True:
        await changed.wait()
        changed.clear()
        try:
            await gateway.reload_pins()
            problems.clear()
        except StoreError as error:
            problems.report(error)
            await asyncio.sleep(RETRY)
            changed.set()
