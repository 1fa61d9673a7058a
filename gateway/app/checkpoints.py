"""External checkpoints, which reveal a store that was restored together with its `.lock`.

A checkpoint has the last event of the audit trail and the start count. It is kept in a file or at a webhook, outside
any snapshot of the store; `recovery` compares the store with it.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from approvals.audit import Checkpoint
from approvals.errors import StoreError
from approvals.store import Store
from gateway.app.late_client import LateClient
from gateway.config.options import CheckpointOptions

#: Seconds between checks for new events in the trail.
INTERVAL = 60.0
log = logging.getLogger("okayed")


class ExternalCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint outside the store: `Checkpoint` as text, and the start count."""

    checkpoint: str
    starts: int


class CheckpointTarget(Protocol):
    """A place outside the store that keeps the last checkpoint."""

    async def last(self) -> ExternalCheckpoint | None:
        """Return the last checkpoint; None before the first, or if the target is unreachable. Raises `StoreError`."""

    async def keep(self, checkpoint: ExternalCheckpoint) -> None:
        """Replace the checkpoint; raises `OSError`."""


class CheckpointFile:
    """A checkpoint in a file, which is replaced atomically."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def last(self) -> ExternalCheckpoint | None:
        """Read the file; None if it does not exist. Raises `StoreError` if it cannot be read."""
        try:
            return decode_checkpoint(await asyncio.to_thread(self._path.read_bytes))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise StoreError(
                f"The checkpoint {self._path} cannot be read ({error}); repair it, or delete it to start without it."
            ) from error

    async def keep(self, checkpoint: ExternalCheckpoint) -> None:
        """Write the file; raises `OSError`."""
        await asyncio.to_thread(self._write, msgspec.json.encode(checkpoint) + b"\n")

    def _write(self, data: bytes) -> None:
        temporary = self._path.with_name(f"{self._path.name}.new")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def decode_checkpoint(data: bytes) -> ExternalCheckpoint:
    """Decode a checkpoint; raises `ValueError` or `msgspec.MsgspecError`."""
    kept = msgspec.json.decode(data, type=ExternalCheckpoint)
    Checkpoint.parse(kept.checkpoint)
    return kept


def build_checkpoint_target(
    options: CheckpointOptions | None, client: LateClient, clock: Callable[[], float]
) -> CheckpointTarget | None:
    """Return the target that the config names, or None."""
    if options is None:
        return None
    if options.file is not None:
        return CheckpointFile(Path(options.file))
    from gateway.app.checkpoint_webhook import CheckpointWebhook

    return CheckpointWebhook(options.webhook or "", options.secret or "", client.open(), clock)


class Checkpoints:
    """Keeps an external checkpoint up to date."""

    def __init__(self, store: Store, target: CheckpointTarget | None) -> None:
        self._store = store
        self._target = target
        self._kept: ExternalCheckpoint | None = None

    async def last(self) -> ExternalCheckpoint | None:
        """Return the last checkpoint, also from before a restart; raises `StoreError` if it cannot be read."""
        return await self._target.last() if self._target else None

    async def run(self) -> None:
        """Keep a checkpoint now and every minute, until cancelled."""
        while True:
            await self.keep()
            await asyncio.sleep(INTERVAL)

    async def keep(self) -> None:
        """Keep a checkpoint if the trail has grown. A failure is logged and retried next time."""
        if self._target is None:
            return
        try:
            head, starts = await self._store.head(), await self._store.start_counts()
            if head is not None and (kept := ExternalCheckpoint(str(head), starts.store)) != self._kept:
                await self._target.keep(kept)
                self._kept = kept
        except (StoreError, OSError) as error:
            log.error("the checkpoint could not be stored: %s", error)  # noqa: TRY400  (a traceback adds nothing)
