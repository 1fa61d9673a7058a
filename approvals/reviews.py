"""The actions of approvers on a held call: reveal, approve, deny, give up, resolve."""

from approvals import call_events, client_meta, lifecycle
from approvals.call_changes import CallChanges, Change
from approvals.errors import (
    AlreadyDecided,
    ApprovalError,
    NotRevealed,
    ReasonNeeded,
    StaleView,
    UnknownCall,
)
from approvals.model import Approver, CallId, Decision, HeldCall, Review, State

#: The longest reason that a person may give, in bytes of UTF-8.
MAX_REASON = 4096


class Reviews(CallChanges):
    """The part of the approval service that approvers use. A refused review is an audit event, too."""

    async def review(
        self,
        call_id: CallId,
        approver: Approver,
        answer: Decision,
        *,
        via: str,
        reason: str = "",
        digest: str = "",
    ) -> HeldCall:
        """Record the answer of *approver* and return the call as it is now.

        An approval needs the *digest* of the call that they saw; a denial does not. Raises `UnknownCall`, `NotAnApprover`,
        `OwnRequest`, `StaleView`, `NotRevealed`, `ReasonNeeded` or `AlreadyDecided`. The same answer given twice by one
        person changes nothing.
        """
        given = Review(approver=approver.name, answer=answer, reason=_trim(reason), at=self.clock(), via=via)
        decide = self._decide(approver, given, digest)
        try:
            return await self._change(
                call_id, decide, actor=approver.name, via=via, answer=answer, reason=given.reason
            )
        except UnknownCall:
            raise
        except ApprovalError as refused:
            self.store.post(call_events.refusal_event(call_id, given, refused, self.wall()))
            # A review after the deadline but before the next sweep: the approver finds the call expired.
            await self._change(call_id, lambda call: lifecycle.expire(call, self.clock()))
            raise

    def _decide(self, approver: Approver, given: Review, digest: str) -> Change:
        """Return the change that a review makes; the order of its checks decides which error people see."""

        def decide(call: HeldCall) -> HeldCall | None:
            self.directory.may_review(approver, call)
            if given.answer is Decision.APPROVE and digest != call.digest:
                raise StaleView
            if any(past.approver == given.approver and past.answer is given.answer for past in call.reviews):
                return None
            if given.answer is Decision.DENY and not given.reason:
                raise ReasonNeeded
            reviewed = lifecycle.review(call, given)
            if given.answer is Decision.APPROVE and not _has_seen(approver, call):
                raise NotRevealed
            return reviewed

        return decide

    async def reveal(self, call_id: CallId, approver: Approver, *, via: str) -> HeldCall:
        """Record that *approver* looks at the hidden values of a call; after that they may approve it.

        Raises `UnknownCall`, `NotAnApprover` or `OwnRequest`.
        """

        def record(call: HeldCall) -> HeldCall | None:
            self.directory.may_review(approver, call)
            if approver.name in call.revealed:
                return None
            return lifecycle.update(call, revealed=(*call.revealed, approver.name))

        return await self._change(call_id, record, actor=approver.name, kind="arguments.revealed", via=via)

    async def give_up(self, call_id: CallId, approver: Approver, reason: str, *, via: str) -> HeldCall:
        """Stop waiting for the server's answer to a running call; the call is then in doubt.

        Raises `UnknownCall`, `NotAnApprover`, `OwnRequest`, `ReasonNeeded`, or `AlreadyDecided` for a call that is not running.
        """
        if not (trimmed := _trim(reason)):
            raise ReasonNeeded("Say why you give the call up.")

        def doubt(call: HeldCall) -> HeldCall | None:
            self.directory.may_review(approver, call)
            if call.state is not State.FORWARDING:
                raise AlreadyDecided(f"This call is {call.state}, not running.")
            return lifecycle.advance(
                call, State.IN_DOUBT, self.clock(), note=f"{approver.name} gave it up: {trimmed}"
            )

        return await self._change(call_id, doubt, actor=approver.name, via=via, reason=trimmed)

    async def resolve(self, call_id: CallId, approver: Approver, reason: str, *, via: str) -> HeldCall:
        """Record an approver's finding about a call in doubt; that is final.

        Raises `UnknownCall`, `NotAnApprover`, `OwnRequest`, `ReasonNeeded`, or `AlreadyDecided` for a call not in doubt.
        """
        if not (trimmed := _trim(reason)):
            raise ReasonNeeded("Say what you found: did it run or not?")

        def settle(call: HeldCall) -> HeldCall:
            self.directory.may_review(approver, call)
            if call.state is not State.IN_DOUBT:
                raise AlreadyDecided(f"This call is {call.state}, not in doubt.")
            return lifecycle.advance(call, State.RESOLVED, self.clock(), note=f"{approver.name}: {trimmed}")

        return await self._change(call_id, settle, actor=approver.name, via=via, reason=trimmed)


def _has_seen(approver: Approver, call: HeldCall) -> bool:
    """Return whether *approver* saw the whole call: it has no hidden values, or they revealed them."""
    return approver.name in call.revealed or not client_meta.count_secrets(call.call)


def _trim(reason: str) -> str:
    """Return a person's reason without surrounding space, cut to MAX_REASON bytes."""
    return reason.strip().encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore")
