"""The stdio front: one frame per line on stdin and stdout, and nothing else on stdout."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from weakref import WeakSet, WeakValueDictionary

from approvals.errors import ApprovalError
from gateway.errors import GatewayError, InternalError
from gateway.fronts.client import GatewayClient
from gateway.upstreams.lifecycle import Send
from gateway.wire import frames, protocol

#: The longest line, in bytes.
MAX_LINE = 4 << 20
#: Seconds to wait for answers after stdin has ended, for a script that pipes requests in and reads the answers. A held
#: call does not wait longer: it must not run for a client that has left.
GRACE = 10.0
log = logging.getLogger("okayed.stdio")


class StdioFront:
    """Serves one client on a pair of streams. *send* reaches the gateway, in this process or another."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        write: Callable[[bytes], Awaitable[None]],
        send: Send,
        grace: float = GRACE,
    ) -> None:
        self._reader = reader
        self._write = write
        self._grace = grace
        self._answer_tasks: set[asyncio.Task[None]] = set()
        self._client = GatewayClient(send, {protocol.FRONT_HEADER: "stdio"})
        #: The session whose messages outside of requests are relayed.
        self._listened_session: str | None = None
        self._listen_task: asyncio.Task[None] | None = None
        #: The open requests, and those among them of 2026-07-28.
        self._requests: WeakValueDictionary[frames.Id, asyncio.Task[None]] = WeakValueDictionary()
        self._modern_answers: WeakSet[asyncio.Task[None]] = WeakSet()

    async def run(self) -> None:
        """Serve until stdin ends and the last answers are written, `grace` seconds later at most."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            while line := await self._read_line():
                frame = await self._decode(line)
                if frame is not None:
                    await self._dispatch(frame, line)
            await self._finish_answers()
            self._stop_listening()
        with suppress(TimeoutError):  # the gateway may be unreachable
            async with asyncio.timeout(self._grace):
                await self._client.close()

    async def _finish_answers(self) -> None:
        if self._answer_tasks:
            await asyncio.wait(self._answer_tasks, timeout=self._grace)
        for task in self._answer_tasks:
            task.cancel()

    async def _read_line(self) -> bytes:
        """Return the next line that is not blank; b"" at the end."""
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return b""  # a last line without a line end is incomplete
            except asyncio.LimitOverrunError:
                await self._skip_line()
                await self._write(
                    frames.build_error(None, -32600, f"The line is longer than {MAX_LINE} bytes.")
                )
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

    async def _decode(self, line: bytes) -> frames.Frame | None:
        try:
            return frames.decode(line)
        except frames.FrameError as error:
            await self._write(frames.build_error(error.id, error.code, error.message))
            return None

    async def _dispatch(self, frame: frames.Frame, line: bytes) -> None:
        """Answer requests concurrently; send all other frames in order."""
        if self._cancel_request(frame):
            return
        if not isinstance(frame, frames.Request | frames.CallFrame) or frame.method == "initialize":
            await self._answer(frame, line)
            return
        task = self._tasks.create_task(self._answer(frame, line))
        self._answer_tasks.add(task)
        task.add_done_callback(self._answer_tasks.discard)
        self._requests[frame.id] = task
        if protocol.era({}, frame) is protocol.Era.MODERN:
            self._modern_answers.add(task)

    def _cancel_request(self, frame: frames.Frame) -> bool:
        """Stop answering a cancelled request; returns False if the notification must be sent to the gateway.

        In 2026-07-28 closing the stream cancels a request over HTTP ("Cancellation"). In the handshake revisions it
        does not. But no notification reaches an unreachable gateway, and the call must not be requested again.
        """
        request_id = protocol.cancelled_id(frame)
        task = None if request_id is None else self._requests.get(request_id)
        if request_id is None or task is None:
            return False
        hangs_up = task in self._modern_answers or self._client.is_retrying(request_id)
        return hangs_up and task.cancel()

    async def _answer(self, frame: frames.Frame, line: bytes) -> None:
        try:
            async with aclosing(self._client.send(frame, line)) as answer:
                async for data in answer:
                    await self._write(data)
        except GatewayError as error:
            await self._refuse(frame, error)
        except ApprovalError as error:
            await self._refuse(frame, GatewayError(str(error)))
        except Exception:  # a failure must not end the client's other requests
            log.exception("the exchange failed")
            await self._refuse(frame, InternalError())
        self._listen()

    async def _refuse(self, frame: frames.Frame, error: GatewayError) -> None:
        if (request_id := frames.request_id_of(frame)) is not None:
            await self._write(frames.build_error(request_id, error.code, str(error)))

    def _listen(self) -> None:
        """Relay the server's messages outside of requests, in each session after its handshake.

        A stream that broke, for example when the gateway restarted, is reopened after the next answer.
        """
        if self._client.session != self._listened_session:
            self._stop_listening()
            self._listened_session = self._client.session
            self._listen_task = self._tasks.create_task(self._relay_messages())

    def _stop_listening(self) -> None:
        if self._listen_task is not None:
            self._listen_task.cancel()

    async def _relay_messages(self) -> None:
        try:
            async for data in self._client.listen():
                await self._write(data)
        except (GatewayError, ApprovalError) as error:
            log.info("cannot relay the server's messages: %s", error)
            self._listened_session = None
        except Exception:
            log.exception("cannot relay the server's messages")
