"""Tasks of MCP 2025-11-25, which 2026-07-28 replaced with an extension; offered only with `tasks: all`.

All of this dialect is here: the offers, the task object, the results and the methods.
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

#: The capability in the result of initialize, and the `execution` member of a tool that may be called as a task.
CAPABILITY: Mapping[str, Any] = {"cancel": {}, "requests": {"tools": {"call": {}}}}
TOOL_SUPPORT = {"taskSupport": "optional"}

RELATED = "io.modelcontextprotocol/related-task"
IMMEDIATE = "io.modelcontextprotocol/model-immediate-response"
#: Members of the task object that the extension renamed: their names there, and here.
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
        """*events_of* returns the notifications of a task's run; *is_closed* says whether the gateway stops."""
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
        """Yield the server's notifications and then the result; end without it when the gateway stops."""
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
        """Yield the server's notifications until the call changes or a beat has passed."""
        events = self._events_of(held.id)
        changed = asyncio.ensure_future(self._service.wait_for_change(held, ladder.BEAT))
        waiting: set[asyncio.Future[Any]] = {changed}
        try:
            while not changed.done():
                waiting = {changed, next_event := asyncio.ensure_future(events.get())}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if next_event.done() and (event := next_event.result()):
                    yield event
        finally:
            for future in waiting:
                future.cancel()


def offer_in_initialize(capabilities: Mapping[str, Any], revision: Any) -> Mapping[str, Any] | None:
    """Return the capabilities with tasks; None for other revisions, and for a server that has tasks itself."""
    if "tasks" in capabilities or revision != protocol.HANDSHAKE[-1]:
        return None
    return {**capabilities, "tasks": CAPABILITY}


def offer_in_tool(execution: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the `execution` member of a tool that may be called as a task."""
    return execution if "taskSupport" in execution else {**execution, **TOOL_SUPPORT}
