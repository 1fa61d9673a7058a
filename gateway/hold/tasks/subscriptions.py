"""Subscriptions to tasks (2026-07-28, `subscriptions/listen`): merges our task events into the server's stream."""

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
    """Return the notifications that a subscription requests; {} for any other frame."""
    if not isinstance(frame, frames.Request) or frame.method != METHOD:
        return {}
    requested = frame.params.get("notifications")
    return requested if isinstance(requested, dict) else {}


def task_ids(frame: frames.Frame) -> Sequence[Any]:
    """Return the task ids in a subscription."""
    ids = requested_notifications(frame).get("taskIds")
    return ids if isinstance(ids, list) else []


def without_tasks(frame: frames.Request, ours: Sequence[str]) -> bytes | None:
    """Return the subscription for the server, without our tasks *ours*; None if nothing is left."""
    requested = requested_notifications(frame)
    theirs = [one for one in task_ids(frame) if one not in ours]
    rest = {name: value for name, value in requested.items() if name != "taskIds" and value}
    if theirs:
        rest["taskIds"] = theirs
    params = {**frame.params, "notifications": rest}
    request = {"jsonrpc": "2.0", "id": frame.id, "method": METHOD, "params": params}
    return msgspec.json.encode(request) if rest else None


def own_stream(service: ApprovalService, frame: frames.Request, ours: Mapping[str, HeldCall]) -> Reply:
    """Return a stream of our tasks; it ends when all of them have ended."""

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
    """Yield the status of each task, then every change, until all have ended."""
    open_tasks: Mapping[str, HeldCall] = ours
    sent: dict[str, str] = {}
    while open_tasks:
        for task_id, held in open_tasks.items():
            result = extension.get_result(task_id, held, {})
            if sent.get(task_id) != result["status"]:
                sent[task_id] = result["status"]
                yield _notification(subscription, result)
        open_tasks = {one: held for one, held in open_tasks.items() if sent[one] not in extension.TERMINAL}
        if open_tasks:
            yield sse.build_comment("waiting for approval")
            await _wait_for_any_change(service, open_tasks.values())
            open_tasks = {one: await newest_call(service, held) for one, held in open_tasks.items()}


def _notification(subscription: frames.Id, result: Mapping[str, Any]) -> bytes:
    task = {name: value for name, value in result.items() if name != "resultType"}
    params = {**task, "_meta": {protocol.META_SUBSCRIPTION: subscription}}
    return sse.build_event(frames.build_notification("notifications/tasks", params))


async def _wait_for_any_change(service: ApprovalService, calls: Any) -> None:
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
    """Merge our events into a server's stream. Its first event stays first, and the stream ends with its last."""
    server_events = (event.raw async for event in sse.split_events(theirs))
    yield await anext(server_events, b"")
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def enqueue(events: AsyncIterator[bytes], end: Callable[[], None]) -> None:
        try:
            async for event in events:
                queue.put_nowait(event)
        finally:
            end()

    readers = [
        asyncio.ensure_future(enqueue(server_events, lambda: queue.put_nowait(None))),
        asyncio.ensure_future(enqueue(ours, lambda: None)),
    ]
    try:
        while (event := await queue.get()) is not None:
            yield event
        await readers[0]
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
