"""Runs an approved call once: claim it, send the stored bytes, store what the server answered.

The claim is committed before the first byte leaves, and a claimed call is never sent a second time. A fault after the
claim leaves the call in doubt, unless it is certain that nothing was sent. The run belongs to the gateway, not to the client's connection: a client that leaves ends nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from approvals.errors import ApprovalError
from approvals.model import AuditEvent, CallId, HeldCall, Outcome
from approvals.service import ApprovalService
from gateway.errors import CutError, GatewayError, NotSentError
from gateway.hold import answer_timeout, session_probe
from gateway.hold.event_buffer import EventBuffer
from gateway.hold.outbound import Outbound
from gateway.hold.session_probe import SilentError
from gateway.upstreams import answers, lifecycle
from gateway.upstreams.reply import Reply
from gateway.wire import frames, sse
from gateway.wire.protocol import LIST_CHANGED

log = logging.getLogger("okayed.forward")
#: Says why an approved call may not run after all, or None.
Objection = Callable[[HeldCall], str | None]
#: Takes the events to show meanwhile, and None at the end.
Show = Callable[[bytes | None], None]
#: Shown when the server ended its stream before it answered, as one does that wants to be asked again (SEP-1699).
HANG_UP = b""


class Forwarder:
    """The runs under outbound; `finish` waits for them."""

    def __init__(self, service: ApprovalService, list_changed: Callable[[str], None]) -> None:
        """*list_changed* is told of each server that says, while it runs a call, that its tools have changed."""
        self._service = service
        self._list_changed = list_changed
        self._runs: set[asyncio.Task[Any]] = set()

    def start(
        self, held: HeldCall, outbound: Outbound, objection: Objection, *, within: float | None = None
    ) -> EventBuffer:
        """Run *held*, with *within* seconds for the server's answer.

        Returns the server's events meanwhile, with None at the end.
        """
        events = EventBuffer()
        self._keep(self._run(held, outbound, objection, within, events.put))
        return events

    async def collected(self, call_id: CallId, session: str = "") -> None:
        """Record that the agent has its answer, even when its connection ends this very moment."""
        await asyncio.shield(self._keep(self._service.record_collected(call_id, session)))

    def cancel(self, held: HeldCall) -> None:
        """Take back a call whose client left, unless it is on its outbound already."""
        self._keep(self._service.cancel(held.id, "the agent hung up", actor=held.call.agent))

    def void(self, server: str, tool: str, definition: str) -> None:
        """Void what waits for a tool under another definition than the one it has now."""
        self._keep(self._void(server, tool, definition))

    async def _void(self, server: str, tool: str, definition: str) -> None:
        for held in await self._service.open_calls(server=server, tool=tool):
            if held.definition and held.definition != definition:
                await self._service.void(held.id, "the definition of this tool changed while the call waited")

    def _keep(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(job)
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)
        return task

    async def finish(self, seconds: float) -> None:
        """Give the runs under outbound *seconds* to end; those that do not are left in doubt by the next sweep."""
        if self._runs:
            await asyncio.wait(self._runs, timeout=seconds)
        for task in self._runs:
            task.cancel()

    async def _run(
        self, held: HeldCall, outbound: Outbound, objection: Objection, within: float | None, show: Show
    ) -> None:
        try:
            await self._once(held, outbound, objection, within, show)
        except (ApprovalError, SilentError) as error:
            log.warning("%s could not be claimed or finished: %s", held.id, error)
        finally:
            show(None)

    async def _once(
        self, held: HeldCall, outbound: Outbound, objection: Objection, within: float | None, show: Show
    ) -> None:
        """Claim the call, and send it in a session that its server has."""
        try:
            headers = await session_probe.ensured(outbound.upstream, outbound.opening, outbound.headers)
        except NotSentError as error:
            await self._unsent(held, objection, str(error))
            return
        try:
            if headers is not outbound.headers:
                self._reopened(held)
            claimed, won = await self._service.claim(held.id, objection)
            if won:
                await self._send(claimed, replace(outbound, headers=headers), within, show)
        finally:
            if headers is not outbound.headers:
                self._keep(lifecycle.close_session(outbound.upstream.send, headers))

    async def _unsent(self, held: HeldCall, objection: Objection, why: str) -> None:
        """End a call that cannot be sent, because its server opens no session for it."""
        _, won = await self._service.claim(held.id, objection)
        if won:
            await self._service.record_not_sent(held.id, why)

    def _reopened(self, held: HeldCall) -> None:
        self._service.store.post(
            AuditEvent(
                at=self._service.wall(), kind="session.reopened", actor="okayed", call=held.id,
                agent=held.call.agent, server=held.call.server, tool=held.call.tool,
            )
        )  # fmt: skip

    async def _send(self, held: HeldCall, outbound: Outbound, within: float | None, show: Show) -> None:
        try:
            outcome = await self._answered(held, outbound, within, show)
        except NotSentError as error:
            await self._service.record_not_sent(held.id, str(error))
        except GatewayError as error:
            await self._service.record_in_doubt(held.id, str(error))
        except BaseException:
            await asyncio.shield(
                self._service.record_in_doubt(
                    held.id, "The gateway failed while this call was on its outbound."
                )
            )
            raise
        else:
            await self._service.finish(held.id, outcome)

    async def _answered(
        self, held: HeldCall, outbound: Outbound, within: float | None, show: Show
    ) -> Outcome:
        """Send the call and return its answer; once it is given up, only what the server says soon after it is told."""
        exchange = asyncio.ensure_future(self._exchanged(held, outbound, show))
        given_up = asyncio.ensure_future(answer_timeout.given_up(self._service, held, within))
        try:
            await asyncio.wait({exchange, given_up}, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done():
                given_up.result()
                show(None)
                if await lifecycle.cancel_call(outbound.upstream.send, outbound.frame, outbound.headers):
                    await asyncio.wait({exchange}, timeout=answer_timeout.LATE)
            if not exchange.done():
                raise CutError("The server did not answer.")
            return exchange.result()
        finally:
            await _ended(exchange, given_up)

    async def _exchanged(self, held: HeldCall, outbound: Outbound, show: Show) -> Outcome:
        body = frames.rebuild(outbound.frame, arguments=held.call.arguments)
        reply = await outbound.upstream.send("POST", body, outbound.headers)
        return await _outcome(reply, outbound, self._heard(held, show))

    def _heard(self, held: HeldCall, show: Show) -> Show:
        def heard(event: bytes | None) -> None:
            if LIST_CHANGED in (event or b""):
                self._list_changed(held.call.server)
            show(event)

        return heard


async def _ended(*jobs: asyncio.Future[Any]) -> None:
    """End jobs that nobody waits for any more."""
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


async def _outcome(reply: Reply, outbound: Outbound, show: Show) -> Outcome:
    """Read the reply up to the answer; a stream that ends before it is taken up again where the server lets us."""
    place = sse.ResumePoint()
    while True:
        try:
            return await answers.outcome_of(reply, outbound.frame.id, show, place)
        except CutError:
            if (wait := place.retry_delay()) is None:
                raise
        show(HANG_UP)
        await asyncio.sleep(wait)
        reply = await _rest(outbound, place.id or "")


async def _rest(outbound: Outbound, event_id: str) -> Reply:
    """Ask for what follows an event; a server that cannot be reached just now is asked again."""
    try:
        return await outbound.upstream.send("GET", b"", {**outbound.headers, "last-event-id": event_id})
    except GatewayError:
        return Reply(status=503)
