"""What a server says while a held call runs, kept for whoever waits with it.

It is news and not the answer, which is in the store. A client may read slowly or be gone, and the run waits for nobody, so what comes
when too much lies here already is dropped.
"""

import asyncio

#: The most bytes that lie here before more is dropped.
MAX_BYTES = 4 << 20


class EventBuffer:
    """Events in the order they came, and None at their end."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._size = 0

    def put(self, event: bytes | None) -> None:
        """Take an event, or drop it; the end is always taken."""
        if event is None or self._size < MAX_BYTES:
            self._size += len(event or b"")
            self._events.put_nowait(event)

    async def get(self) -> bytes | None:
        """Wait for the next event."""
        event = await self._events.get()
        self._size -= len(event or b"")
        return event
