"""Tasks of MCP 2025-11-25, which 2026-07-28 replaced by an extension; offered with `tasks: all`, off by default.

Everything particular to this dialect is here: the offers, the task object, the results and the methods.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from approvals import lifecycle
from approvals.model import CallId, HeldCall
from approvals.service import ApprovalService
from gateway.hold import ladder, messages
from gateway.hold.answering import HeldAnswers
from gateway.hold.event_buffer import EventBuffer
from gateway.hold.ladder import Rung
from gateway.hold.tasks import extension
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, protocol, sse

#: What initialize offers, and the member of a tool's definition that offers it for the tool.
CAPABILITY: Mapping[str, Any] = {"cancel": {}, "requests": {"tools": {"call": {}}}}
TOOL_SUPPORT = {"taskSupport": "optional"}

RELATED = "io.modelcontextprotocol/related-task"
IMMEDIATE = "io.modelcontextprotocol/model-immediate-response"
#: Members of the task object that have another name in the extension.
_NAMES = {"ttlMs": "ttl", "pollIntervalMs": "pollInterval"}
_OVER = "This task is already over."


def task_object(task_id: str, held: HeldCall) -> dict[str, Any]:
    """Return the task object."""
    members = extension.task_object(task_id, held)
    return {_NAMES.get(name, name): value for name, value in members.items()}


def created_result(held: HeldCall) -> Mapping[str, Any]:
    """Return the result of a tools/call that became a task, with a text for the model meanwhile."""
    text = f"Waiting for human approval {held.id}. NOT EXECUTED yet."
    return {"task": task_object(held.id, held), "_meta": {IMMEDIATE: text}}


def result_frame(task_id: str, held: HeldCall, request_id: frames.Id) -> bytes:
    """Return the frame that answers tasks/result."""
    if held.outcome is not None and held.outcome.is_error:
        return frames.build_response(request_id, held.outcome)
    result = (
        dict(messages.status_result(held)) if held.outcome is None else msgspec.json.decode(held.outcome.body)
    )
    meta = {**result.get("_meta", {}), RELATED: {"taskId": task_id}}
    return frames.build_result(request_id, {**result, "_meta": meta})


class TaskMethods2025:
    """Serves tasks/get, tasks/cancel and tasks/result."""

    def __init__(
        self,
        service: ApprovalService,
        held_answers: HeldAnswers,
        events_of: Callable[[CallId], EventBuffer],
        is_closed: Callable[[], bool],
    ) -> None:
        """*events_of* returns the notifications of a task's run; *is_closed* says that the gateway stops."""
        self._service = service
        self._held_answers = held_answers
        self._events_of = events_of
        self._is_closed = is_closed

    async def answer(self, frame: frames.Request, task_id: str, held: HeldCall) -> Reply:
        """Answer a request about a task; *held* is the newest call of the task."""
        match frame.method:
            case "tasks/get":
                return frame_reply(frames.build_result(frame.id, task_object(task_id, held)))
            case "tasks/cancel":
                return await self._cancel(frame, task_id, held)
        return Reply(status=200, headers=sse.HEADERS, chunks=self._stream_result(task_id, held, frame.id))

    async def _cancel(self, frame: frames.Request, task_id: str, held: HeldCall) -> Reply:
        if held.state in lifecycle.SETTLED:
            return frame_reply(frames.build_error(frame.id, frames.INVALID_PARAMS, _OVER))
        cancelled = await self._service.cancel(held.id, "the agent cancelled the task", actor=held.call.agent)
        return frame_reply(frames.build_result(frame.id, task_object(task_id, cancelled)))

    async def _stream_result(
        self, task_id: str, held: HeldCall, request_id: frames.Id
    ) -> AsyncIterator[bytes]:
        """Wait for the result, with the server's notifications meanwhile; ends without it when the gateway stops."""
        while ladder.next_step(held, self._service.monotonic(), float("inf")).rung is not Rung.ANSWER:
            if self._is_closed():
                return
            yield sse.build_comment("waiting for approval")
            async for event in self._next_events(held):
                yield event
            held = await self._service.get(held.id)
        yield sse.build_event(result_frame(task_id, held, request_id))
        await self._held_answers.record_collected(held.id)

    async def _next_events(self, held: HeldCall) -> AsyncIterator[bytes]:
        """Yield the server's notifications until the call changes or a beat is over."""
        events = self._events_of(held.id)
        changed = asyncio.ensure_future(self._service.wait_for_change(held, ladder.BEAT))
        waiting: set[asyncio.Future[Any]] = {changed}
        try:
            while not changed.done():
                waiting = {changed, coming := asyncio.ensure_future(events.get())}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if coming.done() and (event := coming.result()):
                    yield event
        finally:
            for one in waiting:
                one.cancel()


def offer_in_initialize(capabilities: Mapping[str, Any], revision: Any) -> Mapping[str, Any] | None:
    """Return the capabilities with tasks; None for other revisions, and for a server with tasks of its own."""
    if "tasks" in capabilities or revision != protocol.HANDSHAKE[-1]:
        return None
    return {**capabilities, "tasks": CAPABILITY}


def offer_in_tool(execution: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the `execution` member of a tool's definition with the offer to call it as a task."""
    return execution if "taskSupport" in execution else {**execution, **TOOL_SUPPORT}
