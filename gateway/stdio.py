"""The stdin/stdout front, for clients that only launch commands: each line is one frame, and nothing else is written.

It behaves like a Streamable HTTP client: it POSTs every frame to an exchange (the proxy inside, or a gateway that
is listening already), keeps the session id, and opens the server's own stream once the handshake is done.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import msgspec

from gateway import frames, protocol, sse
from gateway.errors import GatewayError
from gateway.upstreams import Reply, whole

#: Does one exchange: verb, body, headers.
Exchange = Callable[[str, bytes, Mapping[str, str]], Awaitable[Reply]]
#: The longest line, in bytes.
MAX_LINE = 4 << 20
log = logging.getLogger("holdpoint.stdio")


class StdioFront:
    """One client on a pair of streams."""

    def __init__(
        self, reader: asyncio.StreamReader, write: Callable[[bytes], Awaitable[None]], exchange: Exchange
    ) -> None:
        self._reader = reader
        self._write = write
        self._exchange = exchange
        self._headers: dict[str, str] = {protocol.FRONT: "stdio"}

    async def run(self) -> None:
        """Serve until stdin ends."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            listening: asyncio.Task[None] | None = None
            while line := await self._read_line():
                frame = await self._decoded(line)
                if frame is None:
                    continue
                await self._post(frame, line)
                if (
                    listening is None
                    and protocol.finishes_handshake(frame)
                    and "Mcp-Session-Id" in self._headers
                ):
                    listening = tasks.create_task(self._listen())
            if listening is not None:
                listening.cancel()
        if "Mcp-Session-Id" in self._headers:
            with suppress(GatewayError):  # a session that is gone already needs no end
                (await self._exchange("DELETE", b"", self._headers)).close()

    async def _read_line(self) -> bytes:
        """Return the next line that holds something, b"" at the end."""
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return b""  # what has no line end was cut off and is no frame
            except asyncio.LimitOverrunError:
                await self._skip_line()
                await self._write(frames.error(None, -32600, "The line is longer than a frame may be."))
                continue
            if line.strip():
                return line.strip()

    async def _skip_line(self) -> None:
        while True:
            try:
                await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as overrun:
                await self._reader.readexactly(overrun.consumed)
                continue
            except asyncio.IncompleteReadError:
                return
            return

    async def _decoded(self, line: bytes) -> frames.Frame | None:
        try:
            return frames.decode(line)
        except frames.FrameError as error:
            await self._write(frames.error(error.id, error.code, error.message))
            return None

    async def _post(self, frame: frames.Frame, line: bytes) -> None:
        """Send a frame on. Requests are answered when their answer comes; the rest keeps its order."""
        if not isinstance(frame, frames.Request | frames.ToolCall) or frame.method == "initialize":
            await self._answer(frame, line)
        else:
            self._tasks.create_task(self._answer(frame, line))

    async def _answer(self, frame: frames.Frame, line: bytes) -> None:
        headers = {**self._headers, **protocol.routing_headers(frame)}
        try:
            reply = await self._exchange("POST", line, headers)
            self._remember(frame, reply)
            await self._show(reply)
        except GatewayError as error:
            if (request_id := frames.id_of(frame)) is not None:
                await self._write(frames.error(request_id, error.code, str(error)))

    def _remember(self, frame: frames.Frame, reply: Reply) -> None:
        if getattr(frame, "method", "") == "initialize" and (session := reply.header("mcp-session-id")):
            self._headers["Mcp-Session-Id"] = session

    async def _show(self, reply: Reply) -> None:
        try:
            if reply.streams:
                async for event in sse.events(reply.chunks):
                    if event.data:
                        await self._write_frame(event.data)
            elif body := (await whole(reply.chunks)).strip():
                await self._write_frame(body)
        finally:
            reply.close()

    async def _write_frame(self, frame: bytes) -> None:
        if "MCP-Protocol-Version" not in self._headers and (revision := _agreed(frame)):
            self._headers["MCP-Protocol-Version"] = revision
        await self._write(frame)

    async def _listen(self) -> None:
        """Show what the server says of its own accord, for as long as it keeps a stream open for that."""
        try:
            reply = await self._exchange("GET", b"", self._headers)
            if reply.streams and reply.status == 200:
                await self._show(reply)
            else:
                reply.close()
        except GatewayError as error:
            log.info("the server's own messages cannot be heard: %s", error)


def _agreed(frame: bytes) -> str | None:
    """Return the revision that an answer to initialize agrees on."""
    result = msgspec.json.decode(frame).get("result")
    revision = result.get("protocolVersion") if isinstance(result, dict) else None
    return revision if isinstance(revision, str) else None
