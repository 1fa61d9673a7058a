"""Keeps every channel at the newest version of every held call, by comparing its messages with the store.

There is no message queue that could lose a message: each round posts or updates every call whose newest version the
channel does not show. That covers restarts and failures. Each channel has its own rounds, so a slow or failing channel
does not delay the others.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from approvals.cards import build_card
from approvals.channels import Card, Channel
from approvals.model import HeldCall, Notice
from approvals.service import ApprovalService
from approvals.signals import Signal, SignalKind, follow
from approvals.store import NoticeStore

#: Seconds between rounds without a change, and the longest wait after failures.
ROUND = 5.0
MAX_WAIT = 300.0
#: The most bytes of the arguments in a notice.
MAX_READ = 65_536
log = logging.getLogger("okayed.notices")


class Notices:
    """The reconciler of all channels."""

    def __init__(
        self, service: ApprovalService, store: NoticeStore, channels: Sequence[Channel], *, url: str
    ) -> None:
        self._service = service
        self._store = store
        self._channels = [(channel, asyncio.Event()) for channel in channels]
        self._url = url

    async def run(self) -> None:
        """Update each channel after every change, and every few seconds, forever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            for channel, changed in self._channels:
                tasks.create_task(self._update_forever(channel, changed))

    async def _listen(self) -> None:
        actions = dict.fromkeys((SignalKind.CALL, SignalKind.RESYNC), self._update_soon)
        await follow(self._service.store.signals(), actions)

    def _update_soon(self, _signal: Signal) -> None:
        for _, changed in self._channels:
            changed.set()

    async def _update_forever(self, channel: Channel, changed: asyncio.Event) -> None:
        while True:
            changed.clear()
            await self._update(channel)
            await _wait(ROUND, changed)

    async def bring_up_to_date(self) -> None:
        """Update every channel once."""
        await asyncio.gather(*(self._update(channel) for channel, _ in self._channels))

    async def _update(self, channel: Channel) -> None:
        try:
            stale = await self._store.stale_calls(channel.name, self._service.clock())
            attended = await self._service.attended([call for call, _ in stale])
            for call, notice in stale:
                await self._show(
                    channel,
                    await self._service.get(call.id),
                    notice or Notice(call=call.id, channel=channel.name),
                    attended=call.id in attended,
                )
        except Exception:
            log.exception("%s could not be updated; the next round tries again", channel.name)

    async def _show(self, channel: Channel, call: HeldCall, notice: Notice, *, attended: bool) -> None:
        try:
            card = build_card(call, self._url, attended=attended, most=MAX_READ)
            ref = await _post(channel, card, notice.ref)
        except Exception as error:  # noqa: BLE001  (no failure of a channel may affect the call)
            await self._store.save_notice(self._record_failure(channel, notice, error))
            return
        await self._store.save_notice(
            replace(notice, ref=ref, shown_version=call.version, failures=0, retry_at=0.0),
        )

    def _record_failure(self, channel: Channel, notice: Notice, error: Exception) -> Notice:
        if notice.failures == 0:
            log.warning("%s could not show %s: %s", channel.name, notice.call, type(error).__name__)
        wait = min(MAX_WAIT, 2.0 ** min(notice.failures, 20))
        return replace(notice, failures=notice.failures + 1, retry_at=self._service.clock() + wait)


async def _post(channel: Channel, card: Card, ref: str | None) -> str:
    return await channel.post(card) if ref is None else await channel.update(ref, card)


async def _wait(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
