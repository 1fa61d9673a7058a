"""`okayed check`: validate a config, check the store's file, and reset its time after the machine's clock was ahead."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from approvals import safetext
from approvals.call_events import GATEWAY
from approvals.clock import Clock
from approvals.lifecycle import TIMED
from approvals.model import AuditEvent
from gateway.app.config import load_config
from gateway.app.file_limit import limit_warnings
from gateway.app.stores import MEMORY, check_store, open_store
from gateway.cli.event_loop import run_async
from gateway.cli.output import print_line
from gateway.config.options import Config
from gateway.errors import UserError

#: The most characters of a line about a fault; the store's text in it may be long.
MAX_LINE = 800
REASON = "The gateway's clock was reset."


class DamagedStore(UserError):
    """The store's file has faults; each was printed."""


def check(path: Path, *, store: bool, reset: bool) -> None:
    """Print whether the config is valid; *store* also checks the store's file, *reset* also resets its time."""
    config = load_config(path, os.environ)
    click.echo(f"{path} is valid. Servers: {', '.join(config.servers)}.")
    for warning in limit_warnings():
        click.echo(f"warning: {warning}", err=True)
    if store:
        print_store_check(config)
    if reset:
        click.echo(run_async(reset_clock(config)))


def print_store_check(config: Config) -> None:
    """Check the store's file and print each fault with its remedy; raises `DamagedStore` when there are some."""
    report = check_store(config)
    for finding in report.findings:
        print_line(safetext.one_line(str(finding), MAX_LINE))
    if report.findings:
        raise DamagedStore(f"The store is damaged. Faults: {len(report.findings)}.")
    print_line(f"The store is intact: {report.calls} calls, {report.events} events.")


async def reset_clock(config: Config, clock: Clock = time.time) -> str:
    """Void every pending and approved call, then set the store's time to *clock*; returns the summary to print.

    Raises `StoreError` while a gateway uses the store. After a crash half-way, run it again.
    """
    if config.store == MEMORY:
        raise UserError("An in-memory store does not keep the time, so there is nothing to reset.")
    from approvals.service import ApprovalService
    from gateway.app.parts import build_directory

    store = await open_store(config)
    try:
        service = ApprovalService(store, build_directory(config), clock=clock)
        old = await store.highest_time()
        waiting = [held for held in await store.open_summaries() if held.state in TIMED]
        for held in waiting:
            await service.void(held.id, REASON)
        detail = {"was": old, "voided": len(waiting)}
        event = AuditEvent(at=clock(), kind="clock.reset", actor=GATEWAY, detail=detail)
        await store.reset_time(clock(), event)
    finally:
        await store.close()
    return f"The store's time was {_utc(old)} and is now {_utc(clock())}. Calls voided: {len(waiting)}."


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
