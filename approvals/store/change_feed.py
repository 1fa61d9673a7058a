"""Publishes the ids of changed calls to every listener, after their commit."""

import asyncio
from collections.abc import AsyncIterator

from approvals.model import CallId


class ChangeFeed:
    """The listeners of one event loop; `publish` may be called only from that loop."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[CallId | None]] = set()

    def publish(self, changed: CallId) -> None:
        """Send an id to every listener."""
        for queue in self._queues:
            queue.put_nowait(changed)

    def listen(self) -> AsyncIterator[CallId]:
        """Start listening now; yield each id that is published, until `close`."""
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
