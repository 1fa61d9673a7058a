"""HTTP connections that aiohttp serves."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from approvals.client_address import LOCAL
from gateway.fronts.connection_limits import FULL, Connections, PeerTimer, Phase

log = logging.getLogger("okayed.connections")


@asynccontextmanager
async def run_app(app: web.Application, seconds: float) -> AsyncIterator[web.Server]:
    """Run an application; at the end, its connections get this many *seconds* to finish their requests."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=seconds)
    await runner.setup()
    try:
        yield cast("web.Server", runner.server)
    finally:
        await runner.cleanup()


class AiohttpConnection(web.RequestHandler):
    """An aiohttp connection that tracks how long it waits for its peer."""

    __slots__ = ("_connections", "_latest_body", "_peer_transport", "_timer")

    def __init__(self, server: web.Server, connections: Connections, timer: PeerTimer | None = None) -> None:
        """*timer* is that of a connection which another front has served so far."""
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]  # None turns it off
        self._connections = connections
        self._peer_transport: asyncio.Transport | None = None
        self._timer = timer or PeerTimer(self._loop.time())
        #: The body of the last request; after an early refusal the rest of it is still arriving.
        self._latest_body: StreamReader = EMPTY_PAYLOAD

    @property
    def phase(self) -> Phase:
        """The current phase."""
        if not self._request_in_progress:
            return self._timer.phase
        request = self._current_request
        return Phase.ANSWER if request is None or request.content.is_eof() else Phase.BODY

    def is_overdue(self, now: float) -> bool:
        """Return whether the peer has exceeded a time limit."""
        request = self._current_request
        deadlines, received = self._connections.deadlines, request.content.total_bytes if request else 0
        unsent = self._peer_transport.get_write_buffer_size() if self._peer_transport is not None else 0
        return self._timer.is_overdue(self.phase, received, deadlines, now) or self._timer.is_not_reading(
            unsent, deadlines, now
        )

    def abort(self) -> None:
        """Close the connection at once; unsent data is lost."""
        if self._peer_transport is not None:
            self._peer_transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the connection, or refuse it at the limit."""
        self._peer_transport = cast("asyncio.Transport", transport)
        if self._connections.admit(self, self._loop.time()):
            super().connection_made(transport)
        else:
            self._peer_transport.write(FULL)
            self._peer_transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remove the connection."""
        self._connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Start the time limit of a request at its first byte."""
        first = self._timer.phase is not Phase.HEAD and self._latest_body.is_eof()
        if first and not self._request_in_progress:
            self._timer.enter(Phase.HEAD, self._loop.time())
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Finish the response; then the connection is idle."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._latest_body = request.content
            self._timer.enter(Phase.IDLE, self._loop.time())

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer malformed HTTP with 400. The log line omits the bytes: they may contain a secret."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        log.info("%s sent malformed HTTP: %s", request.remote or LOCAL, exc.message.partition(":")[0])
        answer = web.Response(status=400, text="Bad request.")
        answer.force_close()
        return answer
