"""Tells every listener which calls changed, after their commit."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from approvals.model import CallId


class Changes:
    """Listeners in one event loop. `announce` may be called from that loop only."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[CallId | None]] = set()

    def announce(self, changed: Iterable[CallId]) -> None:
        """Tell every listener."""
        for call_id in changed:
            for queue in self._queues:
                queue.put_nowait(call_id)

    def listen(self) -> AsyncIterator[CallId]:
        """Start to listen now; the ids come as they are announced, until `close`."""
        queue: asyncio.Queue[CallId | None] = asyncio.Queue()
        self._queues.add(queue)
        return self._drain(queue)

    async def _drain(self, queue: asyncio.Queue[CallId | None]) -> AsyncIterator[CallId]:
        try:
            while (call_id := await queue.get()) is not None:
                yield call_id
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """End every listener's stream."""
        for queue in self._queues:
            queue.put_nowait(None)
