"""`okayed check --reset-clock`: go by the machine's clock again after it was ahead by mistake."""

import time
from datetime import UTC, datetime

from approvals.call_events import GATEWAY
from approvals.clock import Clock
from approvals.lifecycle import TIMED
from approvals.model import AuditEvent
from approvals.service import ApprovalService
from gateway.app.parts import build_directory
from gateway.app.stores import MEMORY, open_store
from gateway.config.options import Config
from gateway.errors import UserError

WHY = "The gateway's clock was reset; ask again."


async def reset_clock(config: Config, clock: Clock = time.time) -> str:
    """Void every pending and approved call, then lower the store's time to *clock*; returns what was done, to print.

    Raises `StoreError` while a gateway uses the store. After a crash half-way, do it again.
    """
    if config.store == MEMORY:
        raise UserError("A store in memory keeps no time; there is nothing to reset.")
    store = await open_store(config)
    try:
        service = ApprovalService(store, build_directory(config), clock=clock)
        was, waiting = await store.highest_time(), await store.summaries(tuple(TIMED))
        for held in waiting:
            await service.void(held.id, WHY)
        detail = {"was": was, "voided": len(waiting)}
        await store.reset_time(
            clock(), AuditEvent(at=clock(), kind="clock.reset", actor=GATEWAY, detail=detail)
        )
    finally:
        await store.close()
    return f"The store's time was {_said(was)} and is {_said(clock())}. Calls voided: {len(waiting)}."


def _said(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
