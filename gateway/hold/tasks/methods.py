"""The task methods for held calls: the agent polls a task while people decide.

The id of a task is that of its held call. Other ids belong to the server's tasks; their requests are relayed. The
dialect of 2025-11-25 is in `revision_2025`.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec

from approvals import lifecycle
from approvals.errors import AlreadyDecided, UnknownCall
from approvals.model import CALL_ID_PREFIXES, CallId, HeldCall
from approvals.service import ApprovalService
from gateway.auth.agents import Agent
from gateway.call import envelope
from gateway.call.request import CallRequest, Exchange
from gateway.hold import request_state
from gateway.hold.answering import HeldAnswers
from gateway.hold.continuations import Continuations
from gateway.hold.ladder import AnswerMode
from gateway.hold.tasks import extension, revision_2025, subscriptions
from gateway.hold.tasks.runs import TaskRuns
from gateway.upstreams import Upstream
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, protocol

METHODS = frozenset({"tasks/get", "tasks/update", "tasks/cancel", "tasks/result"})
UNKNOWN_TASK = protocol.Rejection(code=frames.INVALID_PARAMS, message="There is no such task.")
EXTENSION_NEEDED = protocol.Rejection(
    code=protocol.MISSING_CAPABILITY,
    message="This request needs the tasks extension.",
    data={"requiredCapabilities": {"extensions": {protocol.TASKS: {}}}},
)


class Tasks:
    """Serves the task methods and subscriptions for held calls."""

    def __init__(
        self,
        service: ApprovalService,
        held_answers: HeldAnswers,
        continuations: Continuations,
        upstream: Callable[[str], Upstream | None],
    ) -> None:
        """*upstream* returns a server by name, as it is configured now; None if it is not configured."""
        self._service = service
        self._held_answers = held_answers
        self._continuations = continuations
        self.runs = TaskRuns(service, held_answers, upstream)
        self._methods_2025 = revision_2025.TaskMethods2025(
            service, held_answers, self.runs.events_of, lambda: self.runs.closed
        )
        #: Answers to some of a server's questions, kept until the rest arrive or the approval ends.
        self.partial_answers: dict[CallId, tuple[HeldCall, dict[str, Any]]] = {}

    async def begin(self, request: CallRequest, held: HeldCall, mode: AnswerMode) -> Reply:
        """Answer a call with its task; the held call is already stored."""
        if not held.task:
            held = await self._service.attach_task(held.id)
        self.runs.attend(held.id)
        dialect = extension if mode is AnswerMode.TASK else revision_2025
        return frame_reply(frames.build_result(request.frame.id, dialect.created_result(held)))

    def attend_all(self, open_tasks: Iterable[CallId]) -> None:
        """Attend every open task, and drop answers whose approval has ended."""
        self.runs.attend_all(open_tasks)
        now = self._service.clock()
        self.partial_answers = {
            call_id: (held, answers)
            for call_id, (held, answers) in self.partial_answers.items()
            if lifecycle.can_continue(held, now)
        }

    async def close(self) -> None:
        """Attend no more tasks, and end the waits for results; the held calls stay."""
        await self.runs.close()

    def owns(self, frame: frames.Frame) -> bool:
        """Return whether a request is about one of the gateway's tasks."""
        return (
            isinstance(frame, frames.Request)
            and frame.method in METHODS
            and str(frame.params.get("taskId", "")).startswith(CALL_ID_PREFIXES)
        )

    async def answer(self, exchange: Exchange, frame: frames.Request) -> Reply:
        """Answer a request about one of the gateway's tasks."""
        modern = protocol.era(exchange.headers, frame) is protocol.Era.MODERN
        if modern and not protocol.declares_tasks(frame.params):
            return _error(frame, EXTENSION_NEEDED)
        task_id = str(frame.params["taskId"])
        held = await self._find(exchange.agent, exchange.server, task_id)
        if held is None:
            return _error(frame, UNKNOWN_TASK)
        if not modern:
            return await self._methods_2025.answer(frame, task_id, held)
        return await self._answer_extension(frame, task_id, held)

    async def _answer_extension(self, frame: frames.Request, task_id: str, held: HeldCall) -> Reply:
        match frame.method:
            case "tasks/get":
                return _result(frame, await self._get(task_id, held))
            case "tasks/update":
                await self._update(frame, held)
            case "tasks/cancel":
                reason = "the agent cancelled the task"
                await self._service.cancel(held.id, reason, actor=held.call.agent)
        return _result(frame, {"resultType": "complete"})

    async def _get(self, task_id: str, held: HeldCall) -> Mapping[str, Any]:
        result = extension.get_result(task_id, held, self._answers(held))
        if result["status"] in extension.TERMINAL:
            await self._held_answers.record_collected(held.id)
        return result

    async def _find(self, agent: Agent, server: str, task_id: str) -> HeldCall | None:
        """Return the newest call of a task; None if the task is unknown or belongs to another agent."""
        with suppress(UnknownCall):
            held = await self._service.get(CallId(task_id))
            if (held.call.agent, held.call.server) == (agent.name, server) and held.task:
                return await subscriptions.newest_call(self._service, held)
        return None

    async def _update(self, frame: frames.Request, held: HeldCall) -> None:
        """Add answers to the server's questions; with the last one, the call continues under the same approval."""
        question = request_state.input_required_result(held.outcome.body) if held.outcome else None
        responses = frame.params.get("inputResponses")
        if question is None or not isinstance(responses, dict):
            return
        requested = question.get("inputRequests") or {}
        new = {name: response for name, response in responses.items() if name in requested}
        answers = {**self._answers(held), **new}
        self.partial_answers[held.id] = held, answers
        if answers.keys() == requested.keys():
            await self._continue(held, answers, question.get("requestState"))

    async def _continue(self, held: HeldCall, answers: Mapping[str, Any], state: Any) -> None:
        stored = self.runs.outbound(held)
        rest = {
            "inputResponses": msgspec.json.encode(answers),
            "requestState": None if state is None else msgspec.json.encode(state),
        }
        answered = replace(stored, frame=envelope.with_params(stored.frame, rest))
        with suppress(AlreadyDecided):
            self.runs.attend((await self._continuations.continue_call(held, answered, task=True)).id)
        self.partial_answers.pop(held.id, None)

    def _answers(self, held: HeldCall) -> Mapping[str, Any]:
        """Return the answers to the server's questions that have arrived so far."""
        return self.partial_answers.get(held.id, (held, {}))[1]

    async def subscribe(
        self, exchange: Exchange, frame: frames.Request, relay: Callable[[bytes], Awaitable[Reply]]
    ) -> Reply | None:
        """Serve a subscription to the gateway's tasks; None if it names none of them.

        *relay* sends the rest of the subscription to the server.
        """
        own_ids = [one for one in subscriptions.task_ids(frame) if str(one).startswith(CALL_ID_PREFIXES)]
        if not own_ids:
            return None
        found = {one: await self._find(exchange.agent, exchange.server, one) for one in own_ids}
        ours = {one: held for one, held in found.items() if held is not None}
        theirs = subscriptions.without_tasks(frame, own_ids)
        if theirs is None:
            return subscriptions.own_stream(self._service, frame, ours)
        reply = await relay(theirs)
        if not reply.streams:
            return reply
        changes = subscriptions.task_events(self._service, frame.id, ours)
        return msgspec.structs.replace(reply, chunks=subscriptions.merge_streams(reply.chunks, changes))


def _result(frame: frames.Request, value: Mapping[str, Any]) -> Reply:
    return frame_reply(frames.build_result(frame.id, value))


def _error(frame: frames.Request, error: protocol.Rejection) -> Reply:
    return frame_reply(
        frames.build_error(frame.id, error.code, error.message, error.data), status=error.status
    )
