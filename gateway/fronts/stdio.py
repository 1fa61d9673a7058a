"""The stdin/stdout front, for clients that only launch commands: each line is one frame, and nothing else is written."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from weakref import WeakSet, WeakValueDictionary

from approvals.errors import ApprovalError
from gateway.errors import GatewayError, InternalError
from gateway.fronts.client import Conversation, Exchange
from gateway.wire import frames, protocol

#: The longest line, in bytes.
MAX_LINE = 4 << 20
#: Seconds for which answers are awaited once stdin has ended: enough for a server that answers by itself, as to somebody who
#: pipes lines in and reads on. A held call must not run for a client that is gone; that client asks again for the answer.
GRACE = 10.0
log = logging.getLogger("okayed.stdio")


class StdioFront:
    """One client on a pair of streams, and the exchange behind it: the proxy inside, or a gateway that listens already."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        write: Callable[[bytes], Awaitable[None]],
        exchange: Exchange,
        grace: float = GRACE,
    ) -> None:
        self._reader = reader
        self._write = write
        self._grace = grace
        self._answering: set[asyncio.Task[None]] = set()
        self._talk = Conversation(exchange, {protocol.FRONT_HEADER: "stdio"})
        #: The session whose own messages are listened to.
        self._heard: str | None = None
        self._listening: asyncio.Task[None] | None = None
        #: The requests that are being answered, and which of them are of the revision without sessions.
        self._requests: WeakValueDictionary[frames.Id, asyncio.Task[None]] = WeakValueDictionary()
        self._modern: WeakSet[asyncio.Task[None]] = WeakSet()

    async def run(self) -> None:
        """Serve until stdin ends, and a little longer those who are answered soon."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            while line := await self._read_line():
                frame = await self._decoded(line)
                if frame is not None:
                    await self._post(frame, line)
            await self._last_answers()
            self._stop_listening()
        with suppress(TimeoutError):  # the gateway may be away
            async with asyncio.timeout(self._grace):
                await self._talk.end()

    async def _last_answers(self) -> None:
        if self._answering:
            await asyncio.wait(self._answering, timeout=self._grace)
        for task in self._answering:
            task.cancel()

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
        if self._taken_back(frame):
            return
        if not isinstance(frame, frames.Request | frames.CallFrame) or frame.method == "initialize":
            await self._answer(frame, line)
            return
        answering = self._tasks.create_task(self._answer(frame, line))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)
        self._requests[frame.id] = answering
        if protocol.era({}, frame) is protocol.Era.MODERN:
            self._modern.add(answering)

    def _taken_back(self, frame: frames.Frame) -> bool:
        """End the answer to a request that its client takes back; returns False when the notification itself has to go on.

        In 2026-07-28 hanging up is how a client cancels over HTTP ("Cancellation"). In the handshake revisions it means nothing there;
        but while the gateway is away no notification reaches it, and the call must not be asked for again.
        """
        request_id = protocol.cancelled_id(frame)
        answering = None if request_id is None else self._requests.get(request_id)
        if request_id is None or answering is None:
            return False
        hangs_up = answering in self._modern or self._talk.asks_again(request_id)
        return hangs_up and answering.cancel()

    async def _answer(self, frame: frames.Frame, line: bytes) -> None:
        try:
            async with aclosing(self._talk.say(frame, line)) as answer:
                async for data in answer:
                    await self._write(data)
        except GatewayError as error:
            await self._refuse(frame, error)
        except ApprovalError as error:
            await self._refuse(frame, GatewayError(str(error)))
        except Exception:  # one answer that fails must not end the client's other requests
            log.exception("an exchange failed")
            await self._refuse(frame, InternalError())
        self._listen()

    async def _refuse(self, frame: frames.Frame, error: GatewayError) -> None:
        if (request_id := frames.request_id_of(frame)) is not None:
            await self._write(frames.error(request_id, error.code, str(error)))

    def _listen(self) -> None:
        """Show what the server says of its own accord, in each session from when its handshake is done.

        A stream that broke, as when the gateway was started again, is opened again after the next answer.
        """
        if self._talk.session != self._heard:
            self._stop_listening()
            self._heard = self._talk.session
            self._listening = self._tasks.create_task(self._hear())

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()

    async def _hear(self) -> None:
        try:
            async for data in self._talk.hear():
                await self._write(data)
        except (GatewayError, ApprovalError) as error:
            log.info("the server's own messages cannot be heard: %s", error)
            self._heard = None
        except Exception:
            log.exception("the server's own messages cannot be heard")
