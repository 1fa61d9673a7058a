"""Subscriptions to tasks (2026-07-28, `subscriptions/listen`): adds the gateway's task events to the server's stream."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from approvals.model import CallId, HeldCall
from approvals.service import ApprovalService
from gateway.hold import ladder
from gateway.hold.tasks import extension
from gateway.upstreams.reply import Reply
from gateway.wire import frames, protocol, sse

METHOD = "subscriptions/listen"


def requested_notifications(frame: frames.Frame) -> Mapping[str, Any]:
    """Return the requested notifications; {} for any other frame."""
    if not isinstance(frame, frames.Request) or frame.method != METHOD:
        return {}
    given = frame.params.get("notifications")
    return given if isinstance(given, dict) else {}


def task_ids(frame: frames.Frame) -> Sequence[Any]:
    """Return the task ids in a subscription."""
    named = requested_notifications(frame).get("taskIds")
    return named if isinstance(named, list) else []


def without_tasks(frame: frames.Request, ours: Sequence[str]) -> bytes | None:
    """Return the subscription without the tasks *ours*, for the server; None if nothing is left."""
    given = requested_notifications(frame)
    theirs = [one for one in task_ids(frame) if one not in ours]
    rest = {name: value for name, value in given.items() if name != "taskIds" and value}
    if theirs:
        rest["taskIds"] = theirs
    params = {**frame.params, "notifications": rest}
    frame_sent = {"jsonrpc": "2.0", "id": frame.id, "method": METHOD, "params": params}
    return msgspec.json.encode(frame_sent) if rest else None


def own_stream(service: ApprovalService, frame: frames.Request, ours: Mapping[str, HeldCall]) -> Reply:
    """Return a stream of the gateway's own tasks; it ends when all of them have ended."""

    async def chunks() -> AsyncIterator[bytes]:
        meta = {"_meta": {protocol.META_SUBSCRIPTION: frame.id}}
        accepted = {"notifications": {"taskIds": list(ours)}, **meta}
        yield sse.build_event(frames.build_notification("notifications/subscriptions/acknowledged", accepted))
        async for event in task_events(service, frame.id, ours):
            yield event
        yield sse.build_event(frames.build_result(frame.id, {"resultType": "complete", **meta}))

    return Reply(status=200, headers=sse.HEADERS, chunks=chunks())


async def task_events(
    service: ApprovalService, subscription: frames.Id, ours: Mapping[str, HeldCall]
) -> AsyncIterator[bytes]:
    """Yield the status of each task, and every change, until all have ended."""
    open_tasks: Mapping[str, HeldCall] = ours
    told: dict[str, str] = {}
    while open_tasks:
        for task_id, held in open_tasks.items():
            shown = extension.get_result(task_id, held, {})
            if told.get(task_id) != shown["status"]:
                told[task_id] = shown["status"]
                yield _notification(subscription, shown)
        open_tasks = {one: held for one, held in open_tasks.items() if told[one] not in extension.TERMINAL}
        if open_tasks:
            yield sse.build_comment("waiting for approval")
            await _any_changed(service, open_tasks.values())
            open_tasks = {one: await newest_call(service, held) for one, held in open_tasks.items()}


def _notification(subscription: frames.Id, shown: Mapping[str, Any]) -> bytes:
    task = {name: value for name, value in shown.items() if name != "resultType"}
    params = {**task, "_meta": {protocol.META_SUBSCRIPTION: subscription}}
    return sse.build_event(frames.build_notification("notifications/tasks", params))


async def _any_changed(service: ApprovalService, calls: Any) -> None:
    waiting = [asyncio.ensure_future(service.wait_for_change(held, ladder.BEAT)) for held in calls]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


async def newest_call(service: ApprovalService, held: HeldCall) -> HeldCall:
    """Return the newest version of a call, or of the call that continues it under the same approval."""
    held = await service.get(CallId(held.id))
    while held.continued and (after := await service.store.find(held.continued)):
        held = after
    return held


async def merge_streams(theirs: AsyncIterator[bytes], ours: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Merge our events into a server's stream; its first event stays first, and the stream ends with its last."""
    whole = (event.raw async for event in sse.split_events(theirs))
    yield await anext(whole, b"")
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def take(events: AsyncIterator[bytes], end: Callable[[], None]) -> None:
        try:
            async for event in events:
                queue.put_nowait(event)
        finally:
            end()

    taking = [
        asyncio.ensure_future(take(whole, lambda: queue.put_nowait(None))),
        asyncio.ensure_future(take(ours, lambda: None)),
    ]
    try:
        while (event := await queue.get()) is not None:
            yield event
        await taking[0]
    finally:
        for one in taking:
            one.cancel()
        await asyncio.gather(*taking, return_exceptions=True)
