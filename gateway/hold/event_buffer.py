"""Bounded buffer of the notifications that a server sends while an approved call runs.

The response is not among them: it is in the store. The run does not wait for a client that reads slowly or has left,
so events that do not fit are dropped.
"""

import asyncio

#: The most bytes in the buffer.
MAX_BYTES = 4 << 20


class EventBuffer:
    """Events in order of arrival; None marks the end."""

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
