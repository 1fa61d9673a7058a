"""`okayed log`, `audit verify` and `audit export`: read the audit trail, also while a gateway writes it."""

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from approvals import audit
from approvals.audit import Checkpoint, to_json_line
from approvals.model import AuditEvent
from approvals.store import TrailReader
from approvals.store.sqlite.read_only import read_trail
from gateway.app.config_file import StoreConfig, read_store_config
from gateway.app.stores import open_trail, store_path
from gateway.cli import output
from gateway.cli.output import print_line
from gateway.config.options import parse_duration
from gateway.errors import UserError

#: Seconds between reads with `--follow`.
POLL = 0.5


class BrokenTrail(UserError):
    """The hash chain of the audit trail is broken; the message says where."""


def print_log(path: Path, *, tool: str, agent: str, since: str, follow: bool, as_json: bool) -> None:
    """Print the matching events in order; *since* is a duration (`1h`), *follow* keeps printing new events."""
    start = _start_time(since)
    trail, after = open_trail(read_store_config(path, os.environ).store), 0
    with asyncio.Runner() as runner:
        while True:
            page = runner.run(trail.search_events(after=after, since=start, tool=tool, agent=agent))
            after = page.next
            for event in page.events:
                output.print_event(event, as_json=as_json)
            if page.at_end and not follow:
                return
            if page.at_end:
                time.sleep(POLL)


def _start_time(since: str) -> float:
    try:
        return time.time() - parse_duration(since) if since else 0.0
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from error


def verify(path: Path, file: Path | None, checkpoint: str) -> None:
    """Verify the hash chain of *file*, or else of the config's store; raises `BrokenTrail`.

    A *file* needs no config; if there is one, its store key is used.
    """
    known = _parse_checkpoint(checkpoint)
    keys = StoreConfig("") if file is not None and not path.exists() else read_store_config(path, os.environ)
    if file is not None:
        name, events = file, read_trail(file)
    else:
        name, events = store_path(keys.store), read_events(open_trail(keys.store))
    count, head = verify_trail(str(name), events, keys.store_key.encode(), known)
    print_line(f"{name}: {count} events, the hash chain is intact.")
    if head is not None:
        print_line(f"checkpoint {head}")


def _parse_checkpoint(text: str) -> Checkpoint | None:
    try:
        return Checkpoint.parse(text) if text else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--checkpoint") from error


def verify_trail(
    name: str, events: Iterable[AuditEvent], key: bytes, checkpoint: Checkpoint | None
) -> tuple[int, Checkpoint | None]:
    """Verify a trail, and return its number of events and last checkpoint; raises `BrokenTrail`."""
    count, head = 0, None

    def counted() -> Iterator[AuditEvent]:
        nonlocal count, head
        for event in events:
            count, head = count + 1, Checkpoint(event.seq, event.hash)
            yield event

    if (broken := audit.verify(counted(), key, checkpoint)) is not None:
        raise BrokenTrail(f"{name}: the hash chain is broken at event {broken.seq}: {broken.why}.")
    return count, head


def export(path: Path) -> None:
    """Write every event to stdout, one JSON object per line."""
    for event in read_events(open_trail(read_store_config(path, os.environ).store)):
        sys.stdout.buffer.write(to_json_line(event) + b"\n")


def read_events(trail: TrailReader) -> Iterator[AuditEvent]:
    """Yield the events of a trail in order, page by page."""
    after = 0
    with asyncio.Runner() as runner:
        while page := runner.run(trail.events(after=after)):
            yield from page
            after = page[-1].seq
