"""The one run of an approved call: claimed by one replica, then finished, not sent, or in doubt."""

from collections.abc import Callable
from math import inf
from typing import Any

from approvals import call_events, lifecycle
from approvals.call_changes import CallChanges, Change
from approvals.model import CallId, HeldCall, Outcome, State
from approvals.summaries import Summary

#: The note of a call whose runner was lost.
RUNNER_LOST = "The gateway stopped while this call was running."
#: The note of a call whose claim or result could not be stored.
STORE_FAILED = "The store failed while this call was running."


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
        await self.replica.renew()

        def take(call: HeldCall) -> HeldCall | None:
            nonlocal won
            won, now = False, self.clock()
            if call.state is not State.APPROVED or now >= call.expires_at:
                return lifecycle.expire(call, now)
            if why := objection(call):
                return lifecycle.advance(call, State.VOIDED, now, note=why)
            won = True
            return lifecycle.claim(call, self.replica.id, now)

        # Counted before the commit, so that a sweep never takes a call that runs here for a lost run.
        self.running[call_id] += 1
        send_before = self.replica.send_before
        try:
            call = await self._change(call_id, take)
        except BaseException:
            won = False
            raise
        finally:
            if won:
                self.send_before[call_id] = send_before
            else:
                self._release(call_id)
        return call, won

    def may_send(self, call_id: CallId) -> bool:
        """Return whether a call claimed here may still be sent: otherwise another replica may have put it in doubt."""
        return self.clock() < self.send_before.get(call_id, -inf)

    def _release(self, call_id: CallId) -> None:
        self.running[call_id] -= 1
        if not self.running[call_id]:
            del self.running[call_id]
            self.send_before.pop(call_id, None)

    async def finish(self, call_id: CallId, outcome: Outcome) -> HeldCall:
        """End the run of a claimed call with the server's answer.

        The answer is stored even if the call was given up. After a person's finding it is only an audit event.
        """

        def answer(call: HeldCall) -> HeldCall | None:
            return (
                None
                if call.state is State.RESOLVED
                else lifecycle.finish(call, outcome, self.replica.id, self.clock())
            )

        call = await self._end(call_id, answer, failed=outcome.failed)
        if call.state is State.RESOLVED:
            self.store.post(call_events.late_answer_event(call, outcome, self.wall()))
        return call

    async def record_not_sent(self, call_id: CallId, why: str) -> HeldCall:
        """End the run of a claimed call of which no byte left this process, even if the call was given up."""
        return await self._end(call_id, self._advance_own(State.NOT_SENT, why))

    async def record_in_doubt(self, call_id: CallId, why: str) -> HeldCall:
        """End the run of a claimed call that may or may not have reached the server."""
        return await self._end(call_id, self._advance_own(State.IN_DOUBT, why))

    async def record_unanswered(self, call_id: CallId, why: str) -> HeldCall:
        """Put a running call in doubt without ending its run: the answer may still come."""
        return await self._change(call_id, self._advance_own(State.IN_DOUBT, why))

    def _advance_own(self, to: State, why: str) -> Change:
        """Return the change of a call that this replica runs to state *to*; other calls stay as they are."""
        advance = self._advance(to, why)
        return lambda call: advance(call) if call.runner == self.replica.id else None

    async def _end(self, call_id: CallId, change: Change, **detail: Any) -> HeldCall:
        try:
            return await self._change(call_id, change, **detail)
        finally:
            self._release(call_id)

    # The runs of lost replicas.

    async def doubt_lost_runs(self) -> None:
        """Put in doubt the running calls whose runner was lost, or whose run ended here without a result."""
        running = [call async for call in self._summaries(State.FORWARDING)]
        lost = await self.replica.find_lost(frozenset(call.runner for call in running))
        for call in running:
            if call.runner in lost:
                await self._change(call.id, self._doubt(call.runner, RUNNER_LOST))
            elif self._is_abandoned(call):
                await self._change(call.id, self._doubt(call.runner, STORE_FAILED))

    def _is_abandoned(self, call: Summary) -> bool:
        return call.runner == self.replica.id and call.id not in self.running

    def _doubt(self, runner: str, why: str) -> Change:
        return lambda call: lifecycle.doubt(call, runner, self.clock(), note=why)
