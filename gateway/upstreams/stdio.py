"""Serves an MCP server with the stdio transport as a Streamable HTTP server.

Handshake revisions get one child per session. 2026-07-28 has no connection state, so one shared child serves all
clients; after it ends, the next request starts another. A server/discover request finds out which revision a server
supports. Older servers may exit or never answer; then the request is repeated after `PROBE_INTERVAL`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import msgspec

from gateway.errors import GatewayError, UseInitializeError
from gateway.upstreams.child import Child
from gateway.upstreams.reply import Reply
from gateway.upstreams.sessions import SessionUpstream, exchange_frame
from gateway.wire import frames, protocol

#: Seconds a server may take to answer server/discover, and until it is probed again if it did not.
PROBE_TIMEOUT = 5.0
PROBE_INTERVAL = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommand:
    """How to start a server: an argument list (never a shell string), an environment, a working directory."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None

    async def start(self) -> Child:
        """Start the process."""
        return await Child.start(self.name, self.argv, self.env, self.cwd)


class StdioUpstream(SessionUpstream):
    """One server with one child per session, or one shared child."""

    def __init__(self, command: ServerCommand, clock: Callable[[], float]) -> None:
        super().__init__(command.start, clock)
        self._command = command
        self.shared: Child | None = None
        #: Until when the server is assumed to support handshake revisions only.
        self._handshakes_until = -inf
        self._starting = asyncio.Lock()

    async def _send_modern(self, frame: frames.Frame, body: bytes, /) -> Reply:
        # The ids of different clients may clash, so notifications are dropped. Closing the stream cancels a request.
        if isinstance(frame, frames.Notification):
            return Reply(status=202)
        child = await self._shared_child()
        return await exchange_frame(child, frame, body, on_end=child.cancel, status=_http_status)

    async def _shared_child(self) -> Child:
        """Return the shared child, started if needed; raises `UseInitializeError` for handshake-only servers."""
        async with self._starting:
            if self.shared is not None and self.shared.ended.is_set():
                self._stop(self.shared)
                self.shared = None
            if self._clock() < self._handshakes_until:
                raise UseInitializeError
            if self.shared is None:
                self.shared = await self._start_shared()
            return self.shared

    async def _start_shared(self) -> Child:
        child = await self._command.start()
        try:
            handshakes = await _probe_revision(child)
            self._check_open()
        except BaseException:
            self._stop(child)
            raise
        if handshakes:
            self._handshakes_until = self._clock() + handshakes
            self._stop(child)
            raise UseInitializeError
        return child

    async def close(self) -> None:
        """Stop every child."""
        if self.shared is not None:
            self._stop(self.shared)
            self.shared = None
        await super().close()


async def _probe_revision(child: Child) -> float:
    """Send server/discover; returns for how many seconds the server is assumed to support handshake revisions only."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            answer = await child.send_request(protocol.DISCOVER).response()
    except (GatewayError, TimeoutError):
        return PROBE_INTERVAL
    return 0.0 if "result" in msgspec.json.decode(answer) else inf


def _http_status(answer: bytes) -> int:
    """Return the HTTP status of a JSON-RPC response in 2026-07-28."""
    error = msgspec.json.decode(answer).get("error")
    return protocol.HTTP_STATUS.get(error["code"], 200) if error else 200
