"""Held calls as tasks: a handle that the agent polls while people decide, in both dialects that MCP has had.

A task's id is that of its held call. The call runs as soon as it is approved, whether or not anybody polls, and its
result is kept. Ids that are not ours belong to the server, and pass.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec

from approvals import lifecycle
from approvals.errors import AlreadyDecided, UnknownCall
from approvals.model import CALL_ID_PREFIXES, CallId, HeldCall
from approvals.service import ApprovalService
from approvals.summaries import Summary
from gateway.auth.agents import Agent
from gateway.call import envelope
from gateway.call.request import CallRequest, Exchange
from gateway.errors import GatewayError
from gateway.hold import dialects, ladder, request_state, subscriptions
from gateway.hold.answering import HeldAnswers, rebuild_request
from gateway.hold.event_buffer import EventBuffer
from gateway.hold.ladder import AnswerMode, Rung
from gateway.upstreams import Upstream
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, protocol, sse

log = logging.getLogger("okayed.tasks")
METHODS = frozenset({"tasks/get", "tasks/update", "tasks/cancel", "tasks/result"})
FOREVER = float("inf")
UNKNOWN = protocol.Rejection(code=frames.INVALID_PARAMS, message="There is no such task.")
OVER = protocol.Rejection(code=frames.INVALID_PARAMS, message="This task is over already.", status=200)
NEEDED = protocol.Rejection(
    code=protocol.MISSING_CAPABILITY,
    message="This request needs the tasks extension.",
    data={"requiredCapabilities": {"extensions": {protocol.TASKS: {}}}},
)


class Tasks:
    """The tasks that agents hold."""

    def __init__(
        self, service: ApprovalService, held_answers: HeldAnswers, upstream: Callable[[str], Upstream | None]
    ) -> None:
        self._service = service
        self._held_answers = held_answers
        self._upstream = upstream
        self._closed = False
        self._attended: dict[CallId, asyncio.Task[None]] = {}
        #: What the server says of its own accord while a task that is attended runs.
        self._heard: dict[CallId, EventBuffer] = {}
        #: Answers to some of a server's questions, kept until the rest of them has come or it is too late for it.
        self._partial: dict[CallId, tuple[HeldCall, dict[str, Any]]] = {}

    async def begin(self, request: CallRequest, held: HeldCall, mode: AnswerMode) -> Reply:
        """Answer a call with the handle of a task; the call is durable already."""
        if not held.task:
            held = await self._service.as_task(held.id)
        self.attend(held.id)
        dialect = dialects.EXTENSION if mode is AnswerMode.TASK else dialects.CORE_2025
        return frame_reply(frames.result(request.frame.id, dialect.created(held)))

    # Running what was approved.

    def attend(self, call_id: CallId) -> None:
        """See to it that a task's call runs as soon as it is approved."""
        if call_id not in self._attended and not self._closed:
            heard = self._heard[call_id] = EventBuffer()
            task = asyncio.get_running_loop().create_task(self._until_settled(call_id, heard))
            self._attended[call_id] = task
            task.add_done_callback(lambda _: self._let_go(call_id))

    def _let_go(self, call_id: CallId) -> None:
        self._attended.pop(call_id, None)
        self._heard.pop(call_id, None)

    def attend_all(self, open_calls: Iterable[Summary]) -> None:
        """Attend every task among the open calls: those of before a restart, and those whose attendance failed."""
        for held in open_calls:
            if held.task:
                self.attend(held.id)
        now = self._service.clock()
        self._partial = {
            one: (held, answers)
            for one, (held, answers) in self._partial.items()
            if lifecycle.can_continue(held, now)
        }

    async def close(self) -> None:
        """Attend no task any more, and let nobody wait for a result; the tasks stay as they are."""
        self._closed = True
        self._service.waiters.wake_all()
        attending = list(self._attended.values())
        for task in attending:
            task.cancel()
        await asyncio.gather(*attending, return_exceptions=True)

    async def _until_settled(self, call_id: CallId, heard: EventBuffer) -> None:
        try:
            with self._service.attending(call_id):
                held = await self._service.get(call_id)
                while (
                    step := ladder.next_step(held, self._service.monotonic(), FOREVER)
                ).rung is not Rung.TELL:
                    if step.rung is Rung.RUN:
                        await self._run(held, heard)
                    held = await self._service.changed(held, step.seconds)
        except Exception:
            log.exception("the task %s is not attended any more; the next sweep attends it again", call_id)

    async def _run(self, held: HeldCall, heard: EventBuffer) -> None:
        """Let the call run at its server as it is now; while there is none, it waits."""
        if (upstream := self._upstream(held.call.server)) is not None:
            async for event in self._held_answers.run(_as_asked(held, upstream), held):
                heard.put(event)

    # Serving the methods.

    def owns(self, frame: frames.Frame) -> bool:
        """Say whether a request is about a task of ours."""
        return (
            isinstance(frame, frames.Request)
            and frame.method in METHODS
            and str(frame.params.get("taskId", "")).startswith(CALL_ID_PREFIXES)
        )

    async def answer(self, exchange: Exchange, frame: frames.Request) -> Reply:
        """Answer a request about a task of ours."""
        modern = protocol.era(exchange.headers, frame) is protocol.Era.MODERN
        if modern and not protocol.declares_tasks(frame.params):
            return _error(frame, NEEDED)
        task_id = str(frame.params["taskId"])
        held = await self._newest(exchange.agent, exchange.server, task_id)
        if held is None:
            return _error(frame, UNKNOWN)
        match frame.method, modern:
            case "tasks/get", True:
                shown = dialects.EXTENSION.shown(task_id, held, self._answers(held))
                return _result(frame, await self._collected(held, shown))
            case "tasks/update", True:
                await self._update(exchange, frame, held)
                return _result(frame, {"resultType": "complete"})
            case "tasks/cancel", True:
                await self._cancel(held)
                return _result(frame, {"resultType": "complete"})
            case "tasks/get", False:
                return _result(frame, dialects.CORE_2025.task(task_id, held))
            case "tasks/cancel", False if held.state in lifecycle.SETTLED:
                return _error(frame, OVER)
            case "tasks/cancel", False:
                return _result(frame, dialects.CORE_2025.task(task_id, await self._cancel(held)))
        return Reply(status=200, headers=sse.HEADERS, chunks=self._when_settled(task_id, held, frame.id))

    async def _collected(self, held: HeldCall, shown: Mapping[str, Any]) -> Mapping[str, Any]:
        if shown["status"] in dialects.TERMINAL:
            await self._held_answers.collected(held.id)
        return shown

    async def _newest(self, agent: Agent, server: str, task_id: str) -> HeldCall | None:
        """Return the call that a task has come to; a foreign task is unknown."""
        with suppress(UnknownCall):
            held = await self._service.get(CallId(task_id))
            if (held.call.agent, held.call.server) == (agent.name, server) and held.task:
                return await subscriptions.newest(self._service, held)
        return None

    async def _cancel(self, held: HeldCall) -> HeldCall:
        return await self._service.cancel(held.id, "the agent cancelled the task", actor=held.call.agent)

    async def _update(self, exchange: Exchange, frame: frames.Request, held: HeldCall) -> None:
        """Take answers to what the server asked; when all are there, the call goes on under the same approval."""
        question = request_state.question(held.outcome.body) if held.outcome else None
        given = frame.params.get("inputResponses")
        if question is None or not isinstance(given, dict):
            return
        wanted = question.get("inputRequests") or {}
        answers = {**self._answers(held), **{name: one for name, one in given.items() if name in wanted}}
        self._partial[held.id] = held, answers
        if answers.keys() != wanted.keys():
            return
        request = _as_asked(held, self._upstream(held.call.server), exchange.agent)
        rest = {
            "inputResponses": msgspec.json.encode(answers),
            "requestState": _encoded(question.get("requestState")),
        }
        request = replace(request, frame=envelope.with_rest(request.frame, rest))
        with suppress(AlreadyDecided):
            self.attend((await self._held_answers.follow(request, held, task=True)).id)
        self._partial.pop(held.id, None)

    def _answers(self, held: HeldCall) -> Mapping[str, Any]:
        """Return the answers that were given to what the server asked, as far as they have come."""
        return self._partial.get(held.id, (held, {}))[1]

    async def _when_settled(
        self, task_id: str, held: HeldCall, request_id: frames.Id
    ) -> AsyncIterator[bytes]:
        """Wait for the result and give it, with what the server said meanwhile (2025-11-25, `tasks/result`)."""
        while ladder.next_step(held, self._service.monotonic(), FOREVER).rung is not Rung.TELL:
            if self._closed:
                return
            yield sse.comment("waiting for approval")
            async for event in self._heard_until(held):
                yield event
            held = await self._service.get(held.id)
        yield sse.event(dialects.CORE_2025.result(task_id, held, request_id))
        await self._held_answers.collected(held.id)

    async def _heard_until(self, held: HeldCall) -> AsyncIterator[bytes]:
        """Yield what the server says until the call changes or a beat is over."""
        heard = self._heard.get(held.id, EventBuffer())
        changed = asyncio.ensure_future(self._service.changed(held, ladder.BEAT))
        waiting: set[asyncio.Future[Any]] = {changed}
        try:
            while not changed.done():
                waiting = {changed, saying := asyncio.ensure_future(heard.get())}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if saying.done() and (event := saying.result()):
                    yield event
        finally:
            for one in waiting:
                one.cancel()

    async def listen(
        self, exchange: Exchange, frame: frames.Request, pass_on: Callable[[bytes], Awaitable[Reply]]
    ) -> Reply | None:
        """Serve a subscription that names tasks of ours; None when it names none."""
        named = [one for one in subscriptions.tasks_of(frame) if str(one).startswith(CALL_ID_PREFIXES)]
        found = {one: await self._newest(exchange.agent, exchange.server, one) for one in named}
        if not named:
            return None
        ours = {one: held for one, held in found.items() if held is not None}
        theirs = subscriptions.without(frame, named)
        if theirs is None:
            return subscriptions.alone(self._service, frame, ours)
        reply = await pass_on(theirs)
        if not reply.streams:
            return reply
        return replace(
            reply,
            chunks=subscriptions.merged(reply.chunks, subscriptions.changes(self._service, frame.id, ours)),
        )


def _as_asked(held: HeldCall, upstream: Upstream | None, agent: Agent | None = None) -> CallRequest:
    if upstream is None:
        raise GatewayError(f"The server {held.call.server} is not in the config any more.")
    agent = agent or Agent(name=held.call.agent, owner=held.call.owner)
    exchange = Exchange(agent=agent, server=held.call.server, verb="POST", body=b"", pairs=())
    return rebuild_request(held.call, upstream, exchange, held.id)


def _encoded(value: Any) -> bytes | None:
    return None if value is None else msgspec.json.encode(value)


def _result(frame: frames.Request, value: Mapping[str, Any]) -> Reply:
    return frame_reply(frames.result(frame.id, value))


def _error(frame: frames.Request, wrong: protocol.Rejection) -> Reply:
    return frame_reply(frames.error(frame.id, wrong.code, wrong.message, wrong.data), status=wrong.status)
