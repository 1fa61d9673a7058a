"""Live updates: a stream that signals changes without content. Pages then reload the data they may see."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from approvals.signals import Signal, SignalKind, follow
from approvals.store import SignalStore
from approvals.web.options import WebOptions

#: X-Accel-Buffering keeps nginx from buffering the stream.
HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
IsAllowed = Callable[[], Awaitable[bool]]


class EventStreams:
    """The open streams of live updates."""

    def __init__(self, store: SignalStore, options: WebOptions) -> None:
        self._store = store
        self._options = options
        self._streams: set[_Stream] = set()
        self._closing = False

    @property
    def full(self) -> bool:
        """Whether the limit of open streams is reached."""
        return len(self._streams) >= self._options.max_streams

    async def serve(self, request: web.Request, session: str, allowed: IsAllowed) -> web.StreamResponse:
        """Stream until the client leaves, *allowed* returns False, or the inbox closes.

        *session* is the SHA-256 of the login session's secret; when that session ends, *allowed* is called at once.
        """
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        stream = _Stream(session)
        self._streams.add(stream)
        try:
            async with asyncio.TaskGroup() as tasks:
                follower = tasks.create_task(stream.follow(self._store))
                await self._send_events(response, stream, allowed)
                follower.cancel()
        except* ConnectionError:
            pass  # the client left
        finally:
            self._streams.discard(stream)
        return response

    async def _send_events(self, response: web.StreamResponse, stream: "_Stream", allowed: IsAllowed) -> None:
        # The first event is sent at once, so that a change between loading the page and this stream is not missed.
        count = 0
        await response.write(b"retry: 3000\nevent: inbox\ndata: 0\n\n")
        while not self._closing:
            if not await stream.wait(self._options.ping):
                await response.write(b": still here\n\n")
            if not await allowed():
                return
            if stream.take_change() and not self._closing:
                count += 1
                await response.write(f"event: inbox\ndata: {count}\n\n".encode())

    async def close(self, _app: web.Application) -> None:
        """End all streams, so that the listener can stop."""
        self._closing = True
        for stream in self._streams:
            stream.woken.set()


class _Stream:
    """The event stream of one user: woken by signals."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._changed = False
        self.woken = asyncio.Event()

    async def follow(self, store: SignalStore) -> None:
        """Wake the stream for each change that it shows, and for the end of its user's session."""
        await follow(
            store.signals(),
            {
                SignalKind.CALL: self._show_change,
                SignalKind.PRESENCE: self._show_change,
                SignalKind.LOGOUT: self._check_user,
                SignalKind.RESYNC: self._show_change,
            },
        )

    def _show_change(self, _signal: Signal) -> None:
        self._changed = True
        self.woken.set()

    def _check_user(self, signal: Signal) -> None:
        if signal.subject == self._session:
            self.woken.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until the stream is woken; False if that takes longer than *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return False
        self.woken.clear()
        return True

    def take_change(self) -> bool:
        """Return whether there was a change since the last call."""
        changed, self._changed = self._changed, False
        return changed
