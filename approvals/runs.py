"""The one run of an approved call: claimed by one caller, then finished, not sent, or in doubt."""

from collections.abc import Callable
from typing import Any

from approvals import call_events, lifecycle
from approvals.call_changes import CallChanges, Change
from approvals.model import CallId, HeldCall, Outcome, State


class Runs(CallChanges):
    """The part of the approval service that runs calls."""

    async def claim(
        self, call_id: CallId, objection: Callable[[HeldCall], str | None]
    ) -> tuple[HeldCall, bool]:
        """Claim an approved call to run it: exactly one caller gets it in state `forwarding`, and True.

        *objection* returns the reason why the call may no longer run (policy or definition changed); the call is then
        voided. Every other caller gets the call as it is, and False.
        """
        won = False

        def take(call: HeldCall) -> HeldCall | None:
            nonlocal won
            won, now = False, self.clock()
            if call.state is not State.APPROVED or now >= call.expires_at:
                return lifecycle.expire(call, now)
            if why := objection(call):
                return lifecycle.advance(call, State.VOIDED, now, note=why)
            won = True
            return lifecycle.advance(call, State.FORWARDING, now)

        # Counted before the commit, so that a sweep never mistakes a call running here for one that a crash left behind.
        self.running[call_id] += 1
        try:
            call = await self._change(call_id, take)
        except BaseException:
            won = False
            raise
        finally:
            if not won:
                self._release(call_id)
        return call, won

    def _release(self, call_id: CallId) -> None:
        self.running[call_id] -= 1
        if not self.running[call_id]:
            del self.running[call_id]

    async def finish(self, call_id: CallId, outcome: Outcome) -> HeldCall:
        """End the run of a claimed call with the server's answer.

        The answer is stored even if the call was given up. After a person's finding it is only an audit event.
        """

        def answer(call: HeldCall) -> HeldCall | None:
            return None if call.state is State.RESOLVED else lifecycle.finish(call, outcome, self.clock())

        call = await self._end(call_id, answer, failed=outcome.failed)
        if call.state is State.RESOLVED:
            self.store.post(call_events.late_answer_event(call, outcome, self.wall()))
        return call

    async def record_not_sent(self, call_id: CallId, why: str) -> HeldCall:
        """End the run of a claimed call if none of its bytes left this process, unless it was given up meanwhile."""
        return await self._end(call_id, self._advance(State.NOT_SENT, why))

    async def record_in_doubt(self, call_id: CallId, why: str) -> HeldCall:
        """End the run of a claimed call that may or may not have reached the server."""
        return await self._end(call_id, self._advance(State.IN_DOUBT, why))

    async def record_unanswered(self, call_id: CallId, why: str) -> HeldCall:
        """Put a running call in doubt without ending its run: the answer may still come."""
        return await self._change(call_id, self._advance(State.IN_DOUBT, why))

    async def _end(self, call_id: CallId, change: Change, **detail: Any) -> HeldCall:
        try:
            return await self._change(call_id, change, **detail)
        finally:
            self._release(call_id)
