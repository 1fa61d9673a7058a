"""Runs an approved call once: claim it, send the stored bytes, store what the server answered.

The claim is committed before the first byte leaves, so whatever goes wrong afterwards can only end in doubt, never
in a second run. The run belongs to the gateway, not to the client's connection: a client that leaves ends nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from approvals.errors import ApprovalError
from approvals.model import AuditEvent, CallId, HeldCall, Outcome
from approvals.service import MAX_OPEN, OPEN, ApprovalService
from gateway import asking, frames, sse
from gateway.errors import CutError, GatewayError, NotSentError, UnknownSessionError
from gateway.protocol import LIST_CHANGED
from gateway.shown import Shown
from gateway.upstreams import Reply, Upstream, whole

log = logging.getLogger("holdpoint.forward")
#: Says why an approved call may not run after all, or None.
Objection = Callable[[HeldCall], str | None]
#: Takes the events to show meanwhile, and None at the end.
Show = Callable[[bytes | None], None]


#: Shown when the server ended its stream before it answered, as one does that wants to be asked again (SEP-1699).
HANG_UP = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a call goes out: the request it answers, the server, and the headers that cross."""

    frame: frames.ToolCall
    upstream: Upstream
    headers: Mapping[str, str]
    #: The params of the initialize that opened the session, as JSON; b"" where there is no session.
    opening: bytes = b""


class Forward:
    """The runs under way; `finish` waits for them."""

    def __init__(self, service: ApprovalService, list_changed: Callable[[str], None]) -> None:
        """*list_changed* is told of each server that says, while it runs a call, that its tools have changed."""
        self._service = service
        self._list_changed = list_changed
        self._runs: set[asyncio.Task[Any]] = set()

    def start(self, held: HeldCall, way: Way, objection: Objection) -> Shown:
        """Run *held* on its way; returns the events to show meanwhile, None at the end."""
        shown = Shown()
        self._keep(self._run(held, way, objection, shown.put))
        return shown

    async def collected(self, call_id: CallId) -> None:
        """Record that the agent has its answer, even when its connection ends this very moment."""
        await asyncio.shield(self._keep(self._service.collected(call_id)))

    def cancel(self, held: HeldCall) -> None:
        """Take back a call whose client left, unless it is on its way already."""
        self._keep(self._service.cancel(held.id, "the agent hung up", actor=held.call.agent))

    def void(self, server: str, tool: str, definition: str) -> None:
        """Void what waits for a tool under another definition than the one it has now."""
        self._keep(self._void(server, tool, definition))

    async def _void(self, server: str, tool: str, definition: str) -> None:
        for held in await self._service.store.select(OPEN, server=server, tool=tool, limit=MAX_OPEN):
            if held.definition and held.definition != definition:
                await self._service.void(held.id, "the definition of this tool changed while the call waited")

    def _keep(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(job)
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)
        return task

    async def finish(self, seconds: float) -> None:
        """Give the runs under way *seconds* to end; those that do not are left in doubt by the next sweep."""
        if self._runs:
            await asyncio.wait(self._runs, timeout=seconds)
        for task in self._runs:
            task.cancel()

    async def _run(self, held: HeldCall, way: Way, objection: Objection, show: Show) -> None:
        try:
            claimed, won = await self._service.claim(held.id, objection)
            if won:
                await self._send(claimed, way, show)
        except ApprovalError as error:
            log.warning("%s could not be claimed or finished: %s", held.id, error)
        finally:
            show(None)

    async def _send(self, held: HeldCall, way: Way, show: Show) -> None:
        body = frames.rebuild(way.frame, arguments=held.call.arguments)
        try:
            async with self._in_a_session(held, way, body) as (reply, headers):
                outcome = await _outcome(reply, replace(way, headers=headers), self._heard(held, show))
        except NotSentError as error:
            await self._service.not_sent(held.id, str(error))
        except GatewayError as error:
            await self._service.in_doubt(held.id, str(error))
        except BaseException:
            await asyncio.shield(
                self._service.in_doubt(held.id, "The gateway failed while this call was on its way.")
            )
            raise
        else:
            await self._service.finish(held.id, outcome)

    def _heard(self, held: HeldCall, show: Show) -> Show:
        def heard(event: bytes | None) -> None:
            if LIST_CHANGED in (event or b""):
                self._list_changed(held.call.server)
            show(event)

        return heard

    @asynccontextmanager
    async def _in_a_session(
        self, held: HeldCall, way: Way, body: bytes
    ) -> AsyncIterator[tuple[Reply, Mapping[str, str]]]:
        """Send the call; when the server has forgotten the session meanwhile, in one that is opened like it.

        A server that says 404 to a session id has not looked at the call (MCP, transports, "Session Management").
        """
        reply = await _sent(way, body)
        if reply is not None:
            yield reply, way.headers
            return
        headers = await asking.reopened(way.upstream, way.opening, way.headers)
        self._service.store.post(
            AuditEvent(
                at=self._service.clock(), kind="session.reopened", actor="holdpoint", call=held.id,
                agent=held.call.agent, server=held.call.server, tool=held.call.tool,
            )
        )  # fmt: skip
        try:
            yield await way.upstream.send("POST", body, headers), headers
        finally:
            await asking.ended(way.upstream, headers)


async def _sent(way: Way, body: bytes) -> Reply | None:
    """Send the call; None when the server does not know its session any more, and it can be opened again."""
    try:
        reply = await way.upstream.send("POST", body, way.headers)
    except UnknownSessionError as error:
        if not way.opening:
            raise NotSentError(str(error)) from error
        return None
    if reply.status == 404 and way.opening:
        reply.close()
        return None
    return reply


async def _outcome(reply: Reply, way: Way, show: Show) -> Outcome:
    """Read the reply up to the answer; a stream that ends before it is taken up again where the server lets us."""
    place = sse.Place()
    while True:
        try:
            return await outcome_of(reply, way.frame.id, show, place)
        except CutError:
            if (wait := place.again()) is None:
                raise
        show(HANG_UP)
        await asyncio.sleep(wait)
        reply = await _rest(way, place.id or "")


async def _rest(way: Way, event_id: str) -> Reply:
    """Ask for what follows an event; a server that cannot be reached just now is asked again."""
    try:
        return await way.upstream.send("GET", b"", {**way.headers, "last-event-id": event_id})
    except GatewayError:
        return Reply(status=503)


async def outcome_of(
    reply: Reply, request_id: frames.Id, show: Show, place: sse.Place | None = None
) -> Outcome:
    """Read a server's reply up to the answer that carries *request_id*; other frames are shown on the way.

    Raises `CutError` when there is no such answer: whatever else came, it is not known whether the call ran.
    """
    try:
        async for data, raw in _frames_of(reply, place or sse.Place()):
            frame = frames.from_server(data)
            if (outcome := frames.outcome(frame, data, request_id)) is not None:
                return outcome
            if frames.is_message(frame):
                show(raw)
    except frames.FrameError as error:
        raise CutError("The server's answer could not be read.") from error
    finally:
        reply.close()
    if 300 <= reply.status < 500 and not (place and place.id):
        return _refused(reply.status)
    raise CutError("The server ended its answer without a result.")


def _refused(status: int) -> Outcome:
    """A plain HTTP refusal: the server, or what stands before it, did not take the call."""
    error = {"code": -32603, "message": f"The server refused the call with HTTP {status}."}
    return Outcome(is_error=True, body=msgspec.json.encode(error))


async def _frames_of(reply: Reply, place: sse.Place) -> AsyncIterator[tuple[bytes, bytes]]:
    if not reply.streams:
        body = await whole(reply.chunks)
        if body.strip() and reply.media_type == "application/json":
            yield body, sse.event(body)
        return
    async for event in sse.events(reply.chunks):
        place.reach(event)
        if event.data:
            yield event.data, event.raw
