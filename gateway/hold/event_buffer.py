"""Bounded buffer of the notifications a server sends while an approved call runs.

The response is not among them; it is in the store. A client may read slowly or be gone, and the run does not wait for
it. So events that exceed the buffer are dropped.
"""

import asyncio

#: The most bytes in the buffer.
MAX_BYTES = 4 << 20


class EventBuffer:
    """Events in order of arrival, then None."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._size = 0

    def put(self, event: bytes | None) -> None:
        """Add an event, or drop it if the buffer is full; None is never dropped."""
        if event is None or self._size < MAX_BYTES:
            self._size += len(event or b"")
            self._events.put_nowait(event)

    async def get(self) -> bytes | None:
        """Wait for the next event."""
        event = await self._events.get()
        self._size -= len(event or b"")
        return event
