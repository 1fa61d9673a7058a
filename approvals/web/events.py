"""Live updates: a stream that signals changes without content. Pages then reload the data they may see."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from approvals.store import CallStore
from approvals.web.options import WebOptions

#: X-Accel-Buffering keeps nginx from buffering the stream.
HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
IsAllowed = Callable[[], Awaitable[bool]]


class EventStreams:
    """The open streams of live updates."""

    def __init__(self, store: CallStore, options: WebOptions) -> None:
        self._store = store
        self._options = options
        self._streams: set[asyncio.Event] = set()
        self._closing = False

    @property
    def full(self) -> bool:
        """Whether the limit of open streams is reached."""
        return len(self._streams) >= self._options.max_streams

    async def serve(self, request: web.Request, allowed: IsAllowed) -> web.StreamResponse:
        """Stream until the client leaves, *allowed* returns False, or the inbox closes."""
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        changed = asyncio.Event()
        self._streams.add(changed)
        try:
            async with asyncio.TaskGroup() as tasks:
                watcher = tasks.create_task(self._watch(changed))
                await self._send_events(response, changed, allowed)
                watcher.cancel()
        except* ConnectionError:
            pass  # the client left
        finally:
            self._streams.discard(changed)
        return response

    async def _watch(self, changed: asyncio.Event) -> None:
        async for _ in self._store.changes():
            changed.set()

    async def _send_events(
        self, response: web.StreamResponse, changed: asyncio.Event, allowed: IsAllowed
    ) -> None:
        # The first event is sent at once, so that a change between loading the page and this stream is not missed.
        count = 0
        await response.write(b"retry: 3000\nevent: inbox\ndata: 0\n\n")
        while not self._closing:
            try:
                async with asyncio.timeout(self._options.ping):
                    await changed.wait()
            except TimeoutError:
                await response.write(b": still here\n\n")
            if not await allowed():
                return
            if changed.is_set() and not self._closing:
                changed.clear()
                count += 1
                await response.write(f"event: inbox\ndata: {count}\n\n".encode())

    async def close(self, _app: web.Application) -> None:
        """End all streams, so that the listener can stop."""
        self._closing = True
        for changed in self._streams:
            changed.set()
