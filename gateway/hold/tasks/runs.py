"""Runs the call of each task as soon as it is approved, even if no client polls."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from approvals.model import CallId, HeldCall
from approvals.service import ApprovalService
from gateway.errors import GatewayError
from gateway.hold import ladder
from gateway.hold.answering import HeldAnswers
from gateway.hold.event_buffer import EventBuffer
from gateway.hold.ladder import Rung
from gateway.hold.outbound import Outbound, as_stored
from gateway.upstreams import Upstream

log = logging.getLogger("okayed.tasks")


@dataclass(frozen=True, slots=True)
class Attendance:
    """An open task: the job that waits for its approval and runs it, and the server's notifications during the run."""

    job: asyncio.Task[None]
    events: EventBuffer


class TaskRuns:
    """The open tasks, each attended by a job."""

    def __init__(
        self, service: ApprovalService, held_answers: HeldAnswers, upstream: Callable[[str], Upstream | None]
    ) -> None:
        """*upstream* returns a server by name, as it is configured now; None if it is not configured."""
        self._service = service
        self._held_answers = held_answers
        self._upstream = upstream
        self.closed = False
        self._attended: dict[CallId, Attendance] = {}

    def __len__(self) -> int:
        return len(self._attended)

    def attend(self, call_id: CallId) -> None:
        """Run a task's call as soon as it is approved."""
        if call_id not in self._attended and not self.closed:
            events = EventBuffer()
            job = asyncio.get_running_loop().create_task(self._run_when_approved(call_id, events))
            self._attended[call_id] = Attendance(job, events)
            job.add_done_callback(lambda _: self._attended.pop(call_id, None))

    def attend_all(self, open_tasks: Iterable[CallId]) -> None:
        """Attend every open task, such as those from before a restart or with a failed job."""
        for call_id in open_tasks:
            self.attend(call_id)

    async def close(self) -> None:
        """Attend no more tasks, and end the waits for results; the held calls stay."""
        self.closed = True
        self._service.wakeups.wake_all()
        jobs = [attendance.job for attendance in self._attended.values()]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def events_of(self, call_id: CallId) -> EventBuffer:
        """Return the notifications of a task's run; an empty buffer for a task that is not attended."""
        attendance = self._attended.get(call_id)
        return EventBuffer() if attendance is None else attendance.events

    async def _run_when_approved(self, call_id: CallId, events: EventBuffer) -> None:
        try:
            with self._service.attend(call_id):
                held = await self._service.get(call_id)
                while (step := self._next_step(held)).rung is not Rung.ANSWER:
                    if step.rung is Rung.RUN:
                        await self._run(held, events)
                    held = await self._service.wait_for_change(held, step.seconds)
        except Exception:
            log.exception("task %s is no longer attended; the next sweep attends it again", call_id)

    def _next_step(self, held: HeldCall) -> ladder.Step:
        return ladder.next_step(held, self._service.monotonic(), float("inf"))

    async def _run(self, held: HeldCall, events: EventBuffer) -> None:
        """Run the call on the configured server; do nothing while it is not configured."""
        if self._upstream(held.call.server) is not None:
            async for event in self._held_answers.run(held, self.outbound(held)):
                events.put(event)

    def outbound(self, held: HeldCall) -> Outbound:
        """Return the outbound call of a stored call; raises `GatewayError` if its server is not configured."""
        if (upstream := self._upstream(held.call.server)) is None:
            raise GatewayError(f"The server {held.call.server} is no longer configured.")
        return as_stored(held, upstream)
