"""Checkpoints outside the store, which show a store that was put back together with its `.lock`.

A checkpoint says which event of the audit trail was the last, and the number of the start. It is kept in a file or
at a webhook, where a snapshot of the store does not reach; `starting` holds the store against it.
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
from approvals.channels.webhook import sign, signing_key
from approvals.errors import StoreError
from approvals.store import Store
from gateway.config.options import CheckpointOptions

#: Seconds between two looks at whether the trail has grown.
INTERVAL = 60.0
TIMEOUT = aiohttp.ClientTimeout(total=10)
log = logging.getLogger("okayed")


class ExternalCheckpoint(msgspec.Struct, frozen=True):
    """What is kept outside: `Checkpoint` as text, and the number of the start."""

    checkpoint: str
    starts: int


class CheckpointTarget(Protocol):
    """A place outside the store."""

    async def last(self) -> ExternalCheckpoint | None:
        """Return what was kept last; None when there is nothing, or it cannot be asked for."""

    async def keep(self, kept: ExternalCheckpoint) -> None:
        """Keep it in place of what was kept; raises `OSError` or `aiohttp.ClientError`."""


class CheckpointFile:
    """A file, replaced whole each time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def last(self) -> ExternalCheckpoint | None:
        """Return what the file says; raises `StoreError` when it cannot be read."""
        try:
            return _decoded(await asyncio.to_thread(self._path.read_bytes))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise StoreError(
                f"The checkpoint {self._path} cannot be read ({error}); mend it, or remove it to go on without it."
            ) from error

    async def keep(self, kept: ExternalCheckpoint) -> None:
        """Write the file."""
        await asyncio.to_thread(self._write, msgspec.json.encode(kept) + b"\n")

    def _write(self, data: bytes) -> None:
        fresh = self._path.with_name(f"{self._path.name}.new")
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


class CheckpointWebhook:
    """A receiver of signed webhooks, which may answer a GET with what it was told last."""

    def __init__(
        self, url: str, secret: str, http: aiohttp.ClientSession, clock: Callable[[], float]
    ) -> None:
        self._url = url
        self._key = signing_key(secret)
        self._http = http
        self._clock = clock

    async def last(self) -> ExternalCheckpoint | None:
        """Ask for it. A receiver that does not answer, or not with a checkpoint, keeps nobody from starting."""
        try:
            async with self._http.get(
                self._url, headers=self._signed("last", b""), timeout=TIMEOUT, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    raise ValueError(f"HTTP {answer.status}")
                return _decoded(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            log.warning("the store was not held against a checkpoint: the webhook gave none (%s)", error)
            return None

    async def keep(self, kept: ExternalCheckpoint) -> None:
        """Tell the receiver."""
        body = msgspec.json.encode(
            {"type": "okayed.checkpoint", "data": {"checkpoint": kept.checkpoint, "starts": kept.starts}}
        )
        headers = self._signed(f"checkpoint-{kept.starts}-{kept.checkpoint.partition(':')[0]}", body)
        async with self._http.post(
            self._url, data=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
        ) as answer:
            answer.raise_for_status()

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        return sign(message_id, self._clock(), body, self._key)


def _decoded(data: bytes) -> ExternalCheckpoint:
    kept = msgspec.json.decode(data, type=ExternalCheckpoint)
    Checkpoint.parse(kept.checkpoint)
    return kept


def build_checkpoint_target(
    options: CheckpointOptions | None, http: aiohttp.ClientSession, clock: Callable[[], float]
) -> CheckpointTarget | None:
    """Return the place that the config names, None when it names none."""
    if options is None:
        return None
    if options.file is not None:
        return CheckpointFile(Path(options.file))
    return CheckpointWebhook(options.webhook or "", options.secret or "", http, clock)


class Checkpoints:
    """Keeps a checkpoint outside as often as the trail has grown."""

    def __init__(self, store: Store, outside: CheckpointTarget | None) -> None:
        self._store = store
        self._outside = outside
        self._kept: ExternalCheckpoint | None = None

    async def last(self) -> ExternalCheckpoint | None:
        """Return what was kept last outside, also by an earlier start; raises `StoreError` when it cannot be read."""
        return await self._outside.last() if self._outside else None

    async def run(self) -> None:
        """Keep one now and each minute, for ever."""
        while True:
            await self.keep()
            await asyncio.sleep(INTERVAL)

    async def keep(self) -> None:
        """Keep one unless nothing has changed. A place that cannot be reached is logged, and tried the next time."""
        if self._outside is None:
            return
        try:
            head, starts = await self._store.head(), await self._store.start_counts()
            if head is not None and (kept := ExternalCheckpoint(str(head), starts.store)) != self._kept:
                await self._outside.keep(kept)
                self._kept = kept
        except (StoreError, OSError, aiohttp.ClientError) as error:
            log.error("no checkpoint could be kept: %s", error)  # noqa: TRY400  (the sentence says all)
