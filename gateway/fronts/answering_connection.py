"""A connection that answers one exchange at a time: at once, in a task, or parked without a task."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from gateway.errors import ConnectionLostError
from gateway.fronts import responses
from gateway.fronts.plain_front import PlainFront
from gateway.upstreams.reply import NOTHING, LateReply, Reply, note_nothing

log = logging.getLogger("okayed.server")


class AnsweringConnection(asyncio.Protocol):
    """The writing half of a connection. `_end` is called after each answer.

    It keeps no task and no generator while a call is parked, since thousands of calls may be held.
    """

    __slots__ = (
        "_drained", "_front", "_is_last", "_is_tracked", "_leave", "_parked", "_tracked", "_transport",
    )  # fmt: skip

    def __init__(self, front: PlainFront) -> None:
        self._front = front
        self._transport = cast("asyncio.Transport", None)
        #: Cancels the exchange in progress when the client leaves; None between two exchanges.
        self._leave: Callable[[], object] | None = None
        #: The parked reply, which waits without a task.
        self._parked: Reply | LateReply | None = None
        #: Whether shutdown waits for the exchange, and the exchange's entry in `Endpoint.running`.
        self._is_tracked = False
        self._tracked: object = None
        #: Whether the connection closes after this exchange.
        self._is_last = False
        #: Done when the peer has read enough of the response; None while writing is not paused.
        self._drained: asyncio.Future[None] | None = None

    def abort(self) -> None:
        """Close the connection at once; unsent data is lost."""
        self._transport.abort()

    def connection_lost(self, _: BaseException | None) -> None:
        """Cancel the exchange in progress."""
        leave, self._leave = self._leave, None
        self._track(None)
        if leave is not None:
            leave()

    def pause_writing(self) -> None:
        """Wait for the peer to read its response."""
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Continue to write."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _end(self) -> None:
        """Continue after an answer."""
        raise NotImplementedError

    def _close(self) -> None:
        self._transport.close()

    # Tasks.

    def _run(self, work: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> asyncio.Task[None]:
        """Continue in a task, which is cancelled when the client leaves."""
        task = self._front.spawn(self._guard(work, *given))
        self._leave = task.cancel
        self._track(task)
        return task

    def _run_reply(self, work: Callable[..., Coroutine[Any, Any, None]], reply: Reply | LateReply) -> None:
        """Go on with a reply in a task. The client may leave before the task begins: then the reply is released here."""
        task = self._run(work, reply)

        def leave() -> None:
            is_new = inspect.getcoroutinestate(cast("Any", task.get_coro())) == inspect.CORO_CREATED
            task.cancel()
            if is_new:
                self._release_soon(reply)

        self._leave = leave

    async def _guard(self, work: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> None:
        """Do *work*. Its coroutine is made here: a task that is cancelled before it starts would never await it."""
        try:
            await work(*given)
        except ConnectionResetError:
            self.abort()  # the client has left
        except Exception:
            log.exception("an exchange failed")
            self.abort()

    def _track(self, entry: object) -> None:
        """Count the exchange among those that shutdown waits for, as *entry*; None when it has ended."""
        running = self._front.endpoint.running
        if self._tracked is not None:
            running.discard(self._tracked)
        self._tracked = entry if self._is_tracked else None
        if self._tracked is not None:
            running.add(self._tracked)

    # Writing replies.

    def _answer(self, reply: Reply) -> None:
        """Write a reply at once if it is whole and its delivery is not recorded; else in a task."""
        if reply.body is None or reply.delivered is not note_nothing:
            self._run_reply(self._reply, reply)
            return
        self._write_whole(reply, reply.body)
        reply.close()
        self._end()

    async def _reply(self, answer: Reply | LateReply) -> None:
        """Write an answer, unless it parks: then `_resume` continues."""
        if not isinstance(answer, Reply):
            if answer.park(_write_nothing, self._resume):
                self._park(answer)
                return
            answer = await answer.decide()
        await self._write(answer, self._write_start)

    async def _write_start(self, reply: Reply) -> bool:
        """Write the head, and the body as `_write_chunks` does."""
        whole = _whole_body(reply)
        if whole is not None:
            self._write_whole(reply, whole)
            return False
        close = self._is_last or self._front.is_closing
        self._transport.write(responses.build_chunked(reply.status, reply.headers, close=close))
        return await self._write_chunks(reply)

    async def _write(self, reply: Reply, write: Callable[[Reply], Awaitable[bool]]) -> None:
        """Write a reply by *write*, which returns whether the reply has parked; at its end, release it."""
        try:
            if await write(reply):
                return
            await self._drain()
            await reply.delivered()
        except ConnectionLostError as error:
            log.info("a response broke off: %s", error)
            self._close()  # so that the client does not mistake an incomplete response for a complete one
        except BaseException:
            await _release(reply)
            raise
        await _release(reply)
        self._end()

    async def _write_chunks(self, reply: Reply) -> bool:
        """Write the chunks, and the last chunk at their end. Returns whether they are parked instead."""
        park = getattr(reply.chunks, "park", None)
        while park is None or not park(self._write_sign, self._resume):
            chunk = await anext(reply.chunks, None)
            if chunk is None:
                self._transport.write(responses.LAST_CHUNK)
                return False
            self._transport.write(responses.build_chunk(chunk))
            await self._drain()
        self._park(reply)
        return True

    def _write_whole(self, reply: Reply, body: bytes) -> None:
        close = self._is_last or self._front.is_closing
        self._transport.write(responses.build_whole(reply.status, reply.headers, body, close=close))

    def _write_sign(self, data: bytes) -> None:
        """Write a sign of life, unless the peer does not read."""
        if self._drained is None:
            self._transport.write(responses.build_chunk(data))

    async def _drain(self) -> None:
        """Wait until the peer has read enough; raises `ConnectionResetError` if it has left."""
        if self._drained is not None:
            await self._drained
        if self._transport.is_closing():
            raise ConnectionResetError

    # Waiting without a task.

    def _park(self, parked: Reply | LateReply) -> None:
        self._parked = parked
        self._leave = self._leave_parked
        self._track(self)

    def _resume(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None:
            self._run_reply(self._continue, parked)

    async def _continue(self, parked: Reply | LateReply) -> None:
        if isinstance(parked, Reply):
            await self._write(parked, self._write_chunks)
        else:
            await self._reply(parked)

    def _leave_parked(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None:
            self._release_soon(parked)

    def _release_soon(self, reply: Reply | LateReply) -> None:
        if isinstance(reply, Reply):
            self._front.spawn(_release(reply))
        else:
            reply.close()


def _whole_body(reply: Reply) -> bytes | None:
    """Return the body if it is in memory; None if it arrives in chunks."""
    if reply.status in responses.BODILESS or (reply.body is None and reply.chunks is NOTHING):
        return b""
    return reply.body


async def _release(reply: Reply) -> None:
    """Close a reply and its body."""
    reply.close()
    if (aclose := getattr(reply.chunks, "aclose", None)) is not None:
        await aclose()


def _write_nothing(_: bytes) -> None:
    """Drop a sign of life: no head has been written yet."""
