"""An MCP server that speaks stdio, behind the face of Streamable HTTP.

Handshake revisions get one child per session: capabilities, log level and subscriptions belong to a connection.
The revision of 2026-07-28 has no connection state, so one shared child serves every client. A child that ends is
not missed until the next request, which starts another (modern) or is told that its session is gone (handshake).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import msgspec

from gateway import frames, protocol, sse
from gateway.errors import BusyError, UnknownSessionError, UseInitializeError
from gateway.upstreams import Reply, frame_reply
from gateway.upstreams.child import Child, Exchange, is_response

#: Seconds a request may stay without a frame before its answer becomes a stream, and between comments on it.
QUIET = 10.0
#: Seconds after which an idle session's child is ended.
IDLE = 1800.0
MAX_SESSIONS = 64
SESSION = "mcp-session-id"


@dataclass(slots=True)
class _Session:
    child: Child
    used_at: float
    streaming: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How to start a server: an argument list (never a shell string), its environment, its folder."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None

    async def start(self) -> Child:
        """Start the process."""
        return await Child.start(self.name, self.argv, self.env, self.cwd)


class StdioUpstream:
    """One server, as many children as its sessions need."""

    def __init__(self, command: Command, clock: Callable[[], float]) -> None:
        self._command = command
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._shared: Child | None = None
        self._speaks_modern: bool | None = None
        self._starting = asyncio.Lock()

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; see `Upstream.send`."""
        given = {name.lower(): value for name, value in headers.items()}
        await self._reap()
        if verb == "DELETE":
            return await self._delete(given)
        if verb == "GET":
            return self._listen(self._session(given))
        frame = frames.decode(body)
        if protocol.era(given, frame) is protocol.Era.MODERN:
            return await self._post(await self._modern(), frame, body, modern=True)
        if isinstance(frame, frames.Request) and frame.method == "initialize":
            return await self._open(frame, body)
        return await self._post(self._session(given).child, frame, body, modern=False)

    async def _open(self, frame: frames.Frame, body: bytes) -> Reply:
        if len(self._sessions) >= MAX_SESSIONS:
            raise BusyError
        session_id = secrets.token_hex(16)
        child = await self._command.start()
        self._sessions[session_id] = _Session(child, self._clock())
        reply = await self._post(child, frame, body, modern=False)
        return Reply(
            status=reply.status,
            headers={**reply.headers, "Mcp-Session-Id": session_id},
            chunks=reply.chunks,
            close=reply.close,
        )

    def _session(self, headers: Mapping[str, str]) -> _Session:
        session = self._sessions.get(headers.get(SESSION, ""))
        if session is None or session.child.ended.is_set():
            raise UnknownSessionError
        session.used_at = self._clock()
        return session

    async def _delete(self, headers: Mapping[str, str]) -> Reply:
        self._session(headers)
        await self._sessions.pop(headers[SESSION]).child.stop()
        return Reply(status=200)

    async def _modern(self) -> Child:
        """Return the shared child, started and probed when there is none; a server may speak handshakes only."""
        async with self._starting:
            if self._shared is not None and self._shared.ended.is_set():
                await self._shared.stop()
                self._shared = None
            if self._speaks_modern is False:
                raise UseInitializeError
            if self._shared is None:
                self._shared = await self._probed()
            return self._shared

    async def _probed(self) -> Child:
        child = await self._command.start()
        try:
            answer = await child.ask(protocol.DISCOVER).answer()
        except BaseException:
            await child.stop()
            raise
        self._speaks_modern = "result" in msgspec.json.decode(answer)
        if not self._speaks_modern:
            await child.stop()
            raise UseInitializeError
        return child

    async def _post(self, child: Child, frame: frames.Frame, body: bytes, *, modern: bool) -> Reply:
        if not isinstance(frame, frames.Request | frames.ToolCall):
            child.tell(body)
            return Reply(status=202)
        exchange = child.ask(body)
        leave = partial(child.leave, exchange, cancel=modern)
        try:
            first = await exchange.next(QUIET)
        except BaseException:
            leave()
            raise
        if first is not None and is_response(first):
            return frame_reply(first, status=_status(first) if modern else 200)
        return Reply(status=200, headers=sse.HEADERS, chunks=_stream(first, exchange), close=leave)

    def _listen(self, session: _Session) -> Reply:
        """Open the stream for messages that belong to no request; one per session, as in the SDKs."""
        if session.streaming:
            return Reply(status=409)
        session.streaming = True
        return Reply(
            status=200, headers=sse.HEADERS, chunks=_unsent(session.child), close=partial(setattr, session, "streaming", False),
        )  # fmt: skip

    async def _reap(self) -> None:
        now = self._clock()
        idle = [
            session_id
            for session_id, session in self._sessions.items()
            if session.child.ended.is_set()
            or (now - session.used_at > IDLE and not session.child.exchanges and not session.streaming)
        ]
        for session in [self._sessions.pop(session_id) for session_id in idle]:
            await session.child.stop()

    async def close(self) -> None:
        """End every child."""
        children = [session.child for session in self._sessions.values()]
        self._sessions.clear()
        await asyncio.gather(*(child.stop() for child in [*children, *filter(None, [self._shared])]))
        self._shared = None


def _status(answer: bytes) -> int:
    """Return the HTTP status of a JSON-RPC answer in the revision of 2026-07-28."""
    error = msgspec.json.decode(answer).get("error")
    return protocol.STATUS.get(error["code"], 200) if error else 200


async def _stream(first: bytes | None, exchange: Exchange) -> AsyncIterator[bytes]:
    frame = first
    while True:
        yield sse.comment("waiting") if frame is None else sse.event(frame)
        if frame is not None and is_response(frame):
            return
        frame = await exchange.next(QUIET)


async def _unsent(child: Child) -> AsyncIterator[bytes]:
    while not child.ended.is_set():
        while child.unsent:
            yield sse.event(child.unsent.popleft())
        child.unsent_came.clear()
        if child.unsent or child.ended.is_set():
            continue
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET):
                await child.unsent_came.wait()
                continue
        yield sse.comment("waiting")
