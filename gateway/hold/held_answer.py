"""The answer to one client that waits for a held call, as a state machine.

While the call waits for a person, nothing runs for it: no task and no generator. It is woken by its call, by the timer
wheel, and by shutdown. A task reads it with `decide` and `async for`, and a front parks it in between.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from enum import Enum, auto

from approvals.errors import StoreError
from approvals.model import HeldCall
from gateway.errors import GatewayError, InternalError
from gateway.hold import elicitation, ladder, outbound
from gateway.hold.client_wait import ClientWait
from gateway.hold.hold_context import HoldContext
from gateway.hold.ladder import Rung
from gateway.hold.response_stream import FinalFrame, make_event_id
from gateway.hold.running import HANG_UP
from gateway.upstreams.reply import JSON, Reply, frame_reply
from gateway.wire import frames, sse

#: Follows the error of a store that failed while a client waited: the call may have run by then.
REPEAT_THE_CALL = (
    "It is not known whether this call ran. Repeat it with the same arguments: it runs once at most."
)
log = logging.getLogger("okayed.hold")


class WaitPhase(Enum):
    """The phase of a held answer."""

    #: The call waits for a person, or runs for another client.
    WAITING = auto()
    #: The call runs for this client.
    RUNNING = auto()
    #: The gateway stops, and the client will resume its stream at the next one.
    LINGERING = auto()
    #: The last item is ready, or was read.
    ENDING = auto()
    CLOSED = auto()


class HeldAnswer:
    """The answer to one waiting client: an iterator of chunks that is also `Parkable`, and a `LateReply` at first."""

    __slots__ = (
        "_as_events", "_check_requested", "_client", "_context", "_event_id", "_fault", "_phase", "_ready", "_resume",
        "_slot", "_woken", "_write",
    )  # fmt: skip

    def __init__(self, context: HoldContext, client: ClientWait, link: bytes | None) -> None:
        """Start the wait. *link* is an event with a link to the inbox, sent first."""
        self._context = context
        self._client = client
        self._phase = WaitPhase.WAITING
        #: The items to read next.
        self._ready: tuple[bytes | FinalFrame, ...] = () if link is None else (link,)
        #: How the chunks are written: as events, as one frame, or None while that is undecided.
        self._as_events: bool | None = None
        #: With this id, the client can resume its stream.
        self._event_id: str | None = None
        #: Whether the call may have changed since it was last read.
        self._woken = False
        self._check_requested = False
        self._fault: Exception | None = None
        #: While parked: where signs of life go, how a reader is started, and the slot of the timer.
        self._write: Callable[[bytes], None] | None = None
        self._resume: Callable[[], None] | None = None
        self._slot: int | None = None
        held = client.held.id
        self._listen()
        context.service.presence.arrive(held)
        context.waits.add(client.request.key, client.wait)
        if context.waits.supersede_oldest(held):
            context.service.wakeups.wake(held)

    # The head of the reply.

    async def decide(self) -> Reply:
        """Return the reply: one JSON frame if the answer comes before the first event, else a stream."""
        try:
            first = await self._next_item()
        except GatewayError as error:
            return self._fault_reply(error)
        except Exception:
            log.exception("a held call could not be answered")
            return self._fault_reply(InternalError())
        if isinstance(first, FinalFrame):
            return Reply(
                status=first.status, headers={"Content-Type": JSON}, body=first.frame,
                close=self.close, delivered=self._delivered,
            )  # fmt: skip
        if first is not None:
            self._ready = (first, *self._ready)
            self._as_events = self._client.request.accepts_events
        if self._as_events is False:
            return self._reply({"Content-Type": JSON})
        return self.stream(resumes=self._client.resumes)

    def stream(self, *, resumes: bool, headers: Mapping[str, str] | None = None) -> Reply:
        """Return the reply as a stream of events; *resumes* gives the client an event id to resume it with."""
        self._as_events = True
        if resumes:
            self._event_id = make_event_id(self._client.held.id, self._client.request.id)
            self._ready = (sse.build_priming_event(self._event_id, ladder.RECONNECT_MS), *self._ready)
        return self._reply({**sse.HEADERS, **(headers or {})})

    def _reply(self, headers: Mapping[str, str]) -> Reply:
        return Reply(status=200, headers=headers, chunks=self, close=self.close, delivered=self._delivered)

    def _fault_reply(self, error: GatewayError) -> Reply:
        body = frames.build_error(self._client.request.id, error.code, str(error))
        return frame_reply(body, status=error.status, headers=error.headers)

    async def _delivered(self) -> None:
        self._finish()
        await self._context.on_delivered(self._client)

    # Reading.

    def __aiter__(self) -> "HeldAnswer":
        """Iterate over the chunks."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk. A stream with an event id also ends when the server hangs up."""
        while (item := await self._next_item()) is not None:
            if item == HANG_UP and self._event_id is not None:
                self.close()
                break
            if (chunk := self._encode(item)) is not None:
                return chunk
        raise StopAsyncIteration

    def _encode(self, item: bytes | FinalFrame) -> bytes | None:
        if isinstance(item, FinalFrame):
            return sse.build_event(item.frame) if self._as_events else item.frame
        return item if item and self._as_events else None

    async def _next_item(self) -> bytes | FinalFrame | None:
        """Return the next event or the final frame; None at the end."""
        try:
            while not self._ready:
                if self._phase in {WaitPhase.ENDING, WaitPhase.CLOSED}:
                    self._finish()
                    return None
                await self._advance()
        except Exception:  # its client has not left
            self._release(answered=False)
            raise
        except BaseException:
            self.close()
            raise
        item, *rest = self._ready
        self._ready = tuple(rest)
        return item

    async def _advance(self) -> None:
        """Go on until an item is ready, or the phase changes."""
        try:
            match self._phase:
                case WaitPhase.WAITING:
                    await self._wait_or_run()
                case WaitPhase.RUNNING:
                    await self._read_events()
                case _:
                    await self._linger()
        except StoreError as error:
            message = f"{error} {REPEAT_THE_CALL}"
            self._end(FinalFrame(frames.build_error(self._client.request.id, GatewayError.code, message)))

    # Waiting.

    async def _wait_or_run(self) -> None:
        client, now = self._client, await self._read_call()
        if client.is_idle(now, closing=self._context.waits.closed):
            await self._sleep()
            return
        step = client.next_step(now, closing=self._context.waits.closed)
        match step.rung:
            case Rung.WAIT:
                self._beat(now, step.seconds)
            case Rung.RUN:
                await self._start_run()
            case _:
                self._answer(step.rung)

    async def _read_call(self) -> float:
        """Read the newest version of the call if it may have changed; returns the time."""
        if self._fault is not None:
            raise self._fault
        if self._woken:
            self._woken = False
            self._client.held = await self._context.service.newest(self._client.held)
        return self._context.service.monotonic()

    def _beat(self, now: float, seconds: float) -> None:
        if (sign := self._client.beat(now, seconds)) is not None:
            self._ready = (sign,)

    async def _sleep(self) -> None:
        """Park until a reader is needed, in the task that reads."""
        woken = asyncio.get_running_loop().create_future()

        def resume() -> None:
            if not woken.done():
                woken.set_result(None)

        if self._park(None, resume):
            await woken

    # Running.

    async def _start_run(self) -> None:
        client, self._phase = self._client, WaitPhase.RUNNING
        self._context.service.wakeups.remove(client.held.id, self.wake)
        approved = outbound.as_approved(client.request, client.held)
        await self._context.start_run(client.held, approved, client.wait)

    async def _read_events(self) -> None:
        events = self._client.wait.events
        event = None if events is None else await events.get()
        if event is None:
            await self._end_run()
        else:
            self._ready = (event,)

    async def _end_run(self) -> None:
        """Wait again. If nothing has changed, the claim failed, for example on a full disk; it is retried a beat later."""
        client, service = self._client, self._context.service
        client.wait.events, self._phase = None, WaitPhase.WAITING
        newest = await service.get(client.held.id)
        if newest.version > client.held.version or client.wait.is_over:
            client.held = newest
        else:
            client.claim_failed = True
            now = service.monotonic()
            self._beat(now, client.next_step(now, closing=False).seconds)
        self._listen()

    def _listen(self) -> None:
        """Be woken when the call changes. It may have changed before, so it is read again."""
        self._context.service.wakeups.add(self._client.held.id, self.wake)
        self._woken = True

    # Ending.

    def _answer(self, rung: Rung) -> None:
        """Make the final frame ready; or linger, if the client resumes its stream at the next gateway."""
        client, context = self._client, self._context
        client.rung = rung
        if context.waits.closed and rung is Rung.LATER and client.resumes and not client.wait.is_over:
            self._phase = WaitPhase.LINGERING
            return
        if client.link_shown and rung is Rung.ANSWER:
            self._ready = (elicitation.complete_event(client.held),)
        self._end(context.final_frames.build(rung, client.request, client.held), is_answer=True)

    def _end(self, final: FinalFrame | None = None, *, is_answer: bool = False) -> None:
        self._phase = WaitPhase.ENDING
        self._client.answer_ready = is_answer
        if final is not None:
            self._ready = (*self._ready, final)

    async def _linger(self) -> None:
        await self._context.waits.linger()
        self._end()

    def _finish(self) -> None:
        """Note that the final frame was passed to the writer."""
        if self._phase is WaitPhase.CLOSED:
            return
        self._client.answered = self._client.answer_ready
        self._release(answered=True)
        if self._client.wait.cancelled:
            self._context.on_left(self._client.held)

    def close(self) -> None:
        """Release it; if the answer was not read to its end, its client has left."""
        if self._phase is not WaitPhase.CLOSED:
            self._release(answered=False)
            self._context.on_left(self._client.held)

    async def aclose(self) -> None:
        """Close it, as a generator is closed."""
        self.close()

    def _release(self, *, answered: bool) -> None:
        self._phase = WaitPhase.CLOSED
        self._ready = ()
        self._unpark()
        client, context = self._client, self._context
        context.waits.remove(client.request.key, client.wait, answered=answered)
        context.service.presence.leave(client.held.id)
        context.service.wakeups.remove(client.held.id, self.wake)

    # Parking.

    def park(self, write: Callable[[bytes], None], resume: Callable[[], None]) -> bool:
        """See `Parkable.park`. Before the head is decided, and for one JSON frame, no sign of life is written."""
        return self._park(write if self._as_events is not None else None, resume)

    def _park(self, write: Callable[[bytes], None] | None, resume: Callable[[], None]) -> bool:
        if not self._is_idle():
            return False
        self._write, self._resume = write, resume
        self._set_timer()
        if self._woken:
            self._request_check()
        return True

    def _is_parked(self) -> bool:
        return self._resume is not None

    def _is_idle(self) -> bool:
        """Return whether nothing is ready or due."""
        if self._ready or self._fault is not None or self._phase is not WaitPhase.WAITING:
            return False
        context = self._context
        return self._client.is_idle(context.service.monotonic(), closing=context.waits.closed)

    def _unpark(self) -> None:
        self._write = self._resume = None
        if self._slot is not None:
            self._context.wheel.remove(self, self._slot)
            self._slot = None

    def _wake_reader(self) -> None:
        if (resume := self._resume) is not None:
            self._unpark()
            resume()

    # Wakeups.

    def wake(self) -> None:
        """Note that the call may have changed."""
        self._woken = True
        if self._client.claim_failed:
            self._client.due = self._context.service.monotonic()
        if self._is_parked():
            self._request_check()

    def _request_check(self) -> None:
        if not self._check_requested:
            self._check_requested = True
            self._context.checks.request(self)

    async def check(self) -> None:
        """Read the newest version of the call while parked; start a reader if there is something to send."""
        self._check_requested = False
        if not self._is_parked():
            return
        self._woken = False
        try:
            newest = await self._context.service.newest(self._client.held)
        except Exception as error:  # noqa: BLE001  (the reader raises it)
            self._fault = error
        else:
            self._adopt(newest)
        # A reader that has started meanwhile reads the call itself.
        if self._is_parked() and not self._is_idle():
            self._wake_reader()

    def _adopt(self, newest: HeldCall) -> None:
        if self._is_parked() and newest.version > self._client.held.version:
            self._client.held = newest

    def on_time(self) -> None:
        """Write a sign of life, and check the call in case a wakeup was lost; or start a reader at the end of the wait."""
        self._slot, self._woken = None, True
        now = self._context.service.monotonic()
        step = self._client.next_step(now, closing=self._context.waits.closed)
        if self._write is None or step.rung is not Rung.WAIT:
            self._wake_reader()
            return
        sign = self._client.beat(now, step.seconds)
        self._set_timer()
        self._request_check()
        if sign is not None and self._as_events:
            self._write(sign)

    def _set_timer(self) -> None:
        self._slot = self._context.wheel.add(self, self._client.due)
