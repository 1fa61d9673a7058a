"""Keeps every channel at the newest version of every held call, by comparing its messages with the store.

There is no message queue that could lose a message: each round posts or updates every call whose newest version the
channel does not show. That covers restarts and failures. Each channel has its own rounds, so a slow or failing channel
does not delay the others. Each channel also has a lock: of the replicas that share a store, one at a time posts to it.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from math import inf

from msgspec.structs import replace

from approvals.cards import build_card
from approvals.channels import Card, Channel
from approvals.errors import StoreError
from approvals.model import CallId, HeldCall, Notice
from approvals.problem_log import ProblemLog
from approvals.service import ApprovalService
from approvals.signals import Signal, SignalKind, follow
from approvals.store import NoticeStore

#: Seconds between rounds without a change, and the longest wait after failures.
ROUND = 5.0
MAX_WAIT = 300.0
#: The most seconds from the end of a round to the next one, if calls change all the time.
PAUSE = 0.2
#: Seconds for which a message shows another presence before it is updated.
PRESENCE_DELAY = 10.0
#: Seconds between two comparisons of messages with the presence; each reads every pending call.
COMPARE_EVERY = 1.0
#: The most bytes of the arguments in a notice.
MAX_READ = 65_536
log = logging.getLogger("okayed.notices")


class Notices:
    """The reconcilers of all channels."""

    def __init__(
        self, service: ApprovalService, store: NoticeStore, channels: Sequence[Channel], *, url: str
    ) -> None:
        self._service = service
        self._reconcilers = [_Reconciler(service, store, channel, url) for channel in channels]

    async def run(self) -> None:
        """Update each channel after every change, and every few seconds, forever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            for reconciler in self._reconcilers:
                tasks.create_task(reconciler.run())

    async def _listen(self) -> None:
        actions = dict.fromkeys((SignalKind.CALL, SignalKind.RESYNC), self._update_soon)
        await follow(self._service.store.signals(), actions)

    def _update_soon(self, _signal: Signal) -> None:
        for reconciler in self._reconcilers:
            reconciler.changed.set()

    async def bring_up_to_date(self) -> None:
        """Update every channel once."""
        await asyncio.gather(*(reconciler.update() for reconciler in self._reconcilers))


class _Reconciler:
    """Updates one channel while this replica holds its lock."""

    def __init__(self, service: ApprovalService, store: NoticeStore, channel: Channel, url: str) -> None:
        self._service = service
        self._store = store
        self._channel = channel
        self._url = url
        #: The lock that a replica holds while it posts to the channel.
        self._lock = f"channel:{channel.name}"
        #: Set when a call has changed.
        self.changed = asyncio.Event()
        #: When the presence of a client was first seen to differ from the call's message, on the monotonic clock.
        self._differs_since: dict[CallId, float] = {}
        self._compared_at = -inf
        self._problems = ProblemLog(log, f"the update of {channel.name}")

    async def run(self) -> None:
        """Update the channel after every change, and every few seconds, forever."""
        while True:
            self.changed.clear()
            began = time.monotonic()
            await self.update()
            # A round reads every open call, so many changes share the next one.
            await asyncio.sleep(min(PAUSE, 10 * (time.monotonic() - began)))
            await _wait(ROUND, self.changed)

    async def update(self) -> None:
        """Post or update every message that is out of date, unless another replica holds the lock."""
        try:
            if not await self._service.replica.acquire(self._lock):
                return
            for find in (self._find_stale, self._find_stale_presence):
                for notice in await find():
                    await self._show(notice)
            self._problems.clear()
        except StoreError as error:
            self._problems.report(error)
        except Exception:
            log.exception("%s could not be updated; the next round tries again", self._channel.name)

    async def _find_stale(self) -> Sequence[Notice]:
        """Return the notices of calls whose newest version is not shown."""
        stale = await self._store.stale_calls(self._channel.name, self._service.clock())
        return [notice or Notice(call=call.id, channel=self._channel.name) for call, notice in stale]

    async def _find_stale_presence(self) -> Sequence[Notice]:
        """Return the notices that have shown another presence for `PRESENCE_DELAY` seconds."""
        now = self._service.monotonic()
        if not self._channel.shows_presence or now < self._compared_at + COMPARE_EVERY:
            return ()
        self._compared_at = now
        notices = await self._store.notices_with_stale_presence(self._channel.name, self._service.clock())
        self._differs_since = {one.call: self._differs_since.get(one.call, now) for one in notices}
        return [one for one in notices if now >= self._differs_since[one.call] + PRESENCE_DELAY]

    async def _show(self, notice: Notice) -> None:
        call = await self._service.get(notice.call)
        attended = bool(await self._service.find_attended([call]))
        if (call.version, attended) == (notice.shown_version, notice.shown_attended):
            return
        # This process may have been suspended until its lease was over.
        if not self._service.replica.holds(self._lock):
            return
        await self._store.save_notice(await self._post(call, notice, attended=attended))

    async def _post(self, call: HeldCall, notice: Notice, *, attended: bool) -> Notice:
        """Post or update the message of a call; return its notice."""
        try:
            card = build_card(call, self._url, attended=attended, most=MAX_READ)
            ref = await self._send(card, notice.ref)
        except Exception as error:  # noqa: BLE001  (no failure of a channel may affect the call)
            return self._record_failure(notice, error)
        return replace(
            notice, ref=ref, shown_version=call.version, shown_attended=attended, failures=0, retry_at=0.0
        )

    async def _send(self, card: Card, ref: str | None) -> str:
        return await self._channel.post(card) if ref is None else await self._channel.update(ref, card)

    def _record_failure(self, notice: Notice, error: Exception) -> Notice:
        if notice.failures == 0:
            log.warning("%s could not show %s: %s", notice.channel, notice.call, type(error).__name__)
        wait = min(MAX_WAIT, 2.0 ** min(notice.failures, 20))
        return replace(notice, failures=notice.failures + 1, retry_at=self._service.clock() + wait)


async def _wait(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
