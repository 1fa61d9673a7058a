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

import aiohttp
import msgspec

from approvals.audit import Checkpoint
from approvals.channels.webhook import decode_key, sign
from approvals.errors import StoreError
from approvals.store import Store
from gateway.config.options import CheckpointOptions

#: Seconds between checks for new events in the trail.
INTERVAL = 60.0
TIMEOUT = aiohttp.ClientTimeout(total=10)
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
        """Replace the checkpoint; raises `OSError` or `aiohttp.ClientError`."""


class CheckpointFile:
    """A checkpoint in a file, which is replaced atomically."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def last(self) -> ExternalCheckpoint | None:
        """Read the file; None if it does not exist. Raises `StoreError` if it cannot be read."""
        try:
            return _decode(await asyncio.to_thread(self._path.read_bytes))
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


class CheckpointWebhook:
    """A webhook that receives signed checkpoints, and may return the last one for a GET."""

    def __init__(
        self, url: str, secret: str, http: aiohttp.ClientSession, clock: Callable[[], float]
    ) -> None:
        self._url = url
        self._key = decode_key(secret)
        self._http = http
        self._clock = clock

    async def last(self) -> ExternalCheckpoint | None:
        """Request the checkpoint. The gateway starts without it if the receiver does not return one."""
        try:
            async with self._http.get(
                self._url, headers=self._sign("last", b""), timeout=TIMEOUT, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    raise ValueError(f"HTTP {answer.status}")
                return _decode(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            log.warning(
                "the store was not compared with a checkpoint: the webhook did not return one (%s)", error
            )
            return None

    async def keep(self, checkpoint: ExternalCheckpoint) -> None:
        """Post the checkpoint; raises `aiohttp.ClientError`."""
        body = msgspec.json.encode(
            {
                "type": "okayed.checkpoint",
                "data": {"checkpoint": checkpoint.checkpoint, "starts": checkpoint.starts},
            }
        )
        headers = self._sign(
            f"checkpoint-{checkpoint.starts}-{checkpoint.checkpoint.partition(':')[0]}", body
        )
        async with self._http.post(
            self._url, data=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
        ) as answer:
            answer.raise_for_status()

    def _sign(self, message_id: str, body: bytes) -> dict[str, str]:
        return sign(message_id, self._clock(), body, self._key)


def _decode(data: bytes) -> ExternalCheckpoint:
    kept = msgspec.json.decode(data, type=ExternalCheckpoint)
    Checkpoint.parse(kept.checkpoint)
    return kept


def build_checkpoint_target(
    options: CheckpointOptions | None, http: aiohttp.ClientSession, clock: Callable[[], float]
) -> CheckpointTarget | None:
    """Return the target that the config names, or None."""
    if options is None:
        return None
    if options.file is not None:
        return CheckpointFile(Path(options.file))
    return CheckpointWebhook(options.webhook or "", options.secret or "", http, clock)


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
        except (StoreError, OSError, aiohttp.ClientError) as error:
            log.error("the checkpoint could not be stored: %s", error)  # noqa: TRY400  (a traceback adds nothing)
