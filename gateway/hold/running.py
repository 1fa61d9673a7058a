"""Runs an approved call once: claims it, sends the stored bytes, and stores the server's answer.

The claim is committed before the first byte is sent, and a claimed call is never sent again. A fault after the claim
leaves the call in doubt, unless it is certain that nothing was sent. A run belongs to the gateway and continues when
its client leaves.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from approvals.call_events import GATEWAY
from approvals.errors import ApprovalError
from approvals.model import AuditEvent, CallId, HeldCall, Outcome
from approvals.service import ApprovalService
from gateway.errors import ConnectionLostError, GatewayError, NotSentError
from gateway.hold import answer_timeout, session_probe
from gateway.hold.event_buffer import EventBuffer
from gateway.hold.outbound import Outbound
from gateway.hold.session_probe import SilentError
from gateway.upstreams import answers, lifecycle
from gateway.upstreams.reply import Reply
from gateway.wire import frames, sse
from gateway.wire.protocol import LIST_CHANGED

log = logging.getLogger("okayed.forward")
#: Returns why an approved call may not run, or None.
Objection = Callable[[HeldCall], str | None]
#: Added to the events when the server closed its stream before the response, so that it is polled (SEP-1699).
HANG_UP = b""


class Forwarder:
    """Starts runs, and tracks them until they end."""

    def __init__(self, service: ApprovalService, list_changed: Callable[[str], None]) -> None:
        """*list_changed* is called with a server's name when its tool list changes during a run."""
        self._service = service
        self._list_changed = list_changed
        self._jobs: set[asyncio.Task[Any]] = set()

    def start(
        self, held: HeldCall, outbound: Outbound, objection: Objection, *, within: float | None = None
    ) -> EventBuffer:
        """Start the run of *held*; *within* is the server's time limit in seconds.

        Returns the buffer of the server's events; None in it marks the end of the run.
        """
        events = EventBuffer()
        run = _Run(self._service, outbound, objection, within, self._watch_lists(held, events))
        self._keep(self._run(run, held))
        return events

    def _watch_lists(self, held: HeldCall, events: EventBuffer) -> "EventSink":
        def put(event: bytes | None) -> None:
            if LIST_CHANGED in (event or b""):
                self._list_changed(held.call.server)
            events.put(event)

        return put

    async def _run(self, run: "_Run", held: HeldCall) -> None:
        try:
            await run.once(held, close_later=self._keep)
        except (ApprovalError, SilentError) as error:
            log.warning("%s could not be claimed or finished: %s", held.id, error)
        finally:
            run.on_event(None)

    async def record_collected(self, call_id: CallId, session: str = "") -> None:
        """Record that the agent has its answer, even if its connection closes meanwhile."""
        await asyncio.shield(self._keep(self._service.record_collected(call_id, session)))

    def cancel(self, held: HeldCall) -> None:
        """Cancel a call whose client left, unless it is already running."""
        self._keep(self._service.cancel(held.id, "the agent hung up", actor=held.call.agent))

    def void(self, server: str, tool: str, definition: str) -> None:
        """Void the open calls of a tool that were held under a definition other than *definition*."""
        self._keep(self._void(server, tool, definition))

    async def _void(self, server: str, tool: str, definition: str) -> None:
        for held in await self._service.open_calls(server=server, tool=tool):
            if held.definition and held.definition != definition:
                await self._service.void(held.id, "the definition of this tool changed while the call waited")

    def _keep(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task

    async def finish(self, seconds: float) -> None:
        """Wait up to *seconds* for running calls to end; the next sweep puts the others in doubt."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=seconds)
        for job in self._jobs:
            job.cancel()


#: Receives the events of a run, and None at the end.
EventSink = Callable[[bytes | None], None]


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of one call."""

    service: ApprovalService
    outbound: Outbound
    objection: Objection
    #: Seconds that the server has to answer; None for no limit.
    within: float | None
    on_event: EventSink

    async def once(
        self, held: HeldCall, *, close_later: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        """Claim the call, and send it in a session that exists at its server."""
        outbound = self.outbound
        try:
            headers = await session_probe.ensure_session(
                outbound.upstream, outbound.opening, outbound.headers
            )
        except NotSentError as error:
            await self._end_unsent(held, str(error))
            return
        reopened = headers is not outbound.headers
        try:
            if reopened:
                self._record_reopened(held)
            claimed, won = await self.service.claim(held.id, self.objection)
            if won:
                await self._send(claimed, headers)
        finally:
            if reopened:
                close_later(lifecycle.close_session(outbound.upstream.send, headers))

    async def _end_unsent(self, held: HeldCall, why: str) -> None:
        """Settle a call that cannot be sent, because its server opens no session for it."""
        _, won = await self.service.claim(held.id, self.objection)
        if won:
            await self.service.record_not_sent(held.id, why)

    def _record_reopened(self, held: HeldCall) -> None:
        self.service.store.post(
            AuditEvent(
                at=self.service.wall(), kind="session.reopened", actor=GATEWAY, call=held.id,
                agent=held.call.agent, server=held.call.server, tool=held.call.tool,
            )
        )  # fmt: skip

    async def _send(self, held: HeldCall, headers: Mapping[str, str]) -> None:
        """Send a claimed call, and store the result."""
        try:
            outcome = await self._answer(held, replace(self.outbound, headers=headers))
        except NotSentError as error:
            await self.service.record_not_sent(held.id, str(error))
        except GatewayError as error:
            await self.service.record_in_doubt(held.id, str(error))
        except BaseException:
            why = "The gateway failed while this call was running."
            await asyncio.shield(self.service.record_in_doubt(held.id, why))
            raise
        else:
            await self.service.finish(held.id, outcome)

    async def _answer(self, held: HeldCall, outbound: Outbound) -> Outcome:
        """Return the server's answer. When the wait ends first, cancel the request; a late answer is still used."""
        exchange = asyncio.ensure_future(self._exchange(held, outbound))
        given_up = asyncio.ensure_future(answer_timeout.wait_for_give_up(self.service, held, self.within))
        try:
            await asyncio.wait({exchange, given_up}, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done():
                given_up.result()
                self.on_event(None)
                if await lifecycle.cancel_call(outbound.upstream.send, outbound.frame, outbound.headers):
                    await asyncio.wait({exchange}, timeout=answer_timeout.LATE_SECONDS)
            if not exchange.done():
                raise ConnectionLostError("The server did not answer.")
            return exchange.result()
        finally:
            await _end(exchange, given_up)

    async def _exchange(self, held: HeldCall, outbound: Outbound) -> Outcome:
        body = frames.rebuild(outbound.frame, arguments=held.call.arguments)
        if not self.service.may_send(held.id):
            raise NotSentError(
                "The gateway was suspended, or its clock was set ahead, after it claimed this call, so it was not sent."
            )
        reply = await outbound.upstream.send("POST", body, outbound.headers)
        return await _read_to_outcome(reply, outbound, self.on_event)


async def _end(*jobs: asyncio.Future[Any]) -> None:
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


async def _read_to_outcome(reply: Reply, outbound: Outbound, on_event: EventSink) -> Outcome:
    """Read the reply up to the response; a stream that ends early is resumed if the server allows it."""
    resume_point = sse.ResumePoint()
    while True:
        try:
            return await answers.read_outcome(reply, outbound.frame.id, on_event, resume_point)
        except ConnectionLostError:
            if (delay := resume_point.retry_delay()) is None:
                raise
        on_event(HANG_UP)
        await asyncio.sleep(delay)
        reply = await _resume(outbound, resume_point.id or "")


async def _resume(outbound: Outbound, event_id: str) -> Reply:
    """Request the events after *event_id*. An unreachable server is treated as a 503, so that the resume is retried."""
    try:
        return await outbound.upstream.send("GET", b"", {**outbound.headers, "last-event-id": event_id})
    except GatewayError:
        return Reply(status=503)
