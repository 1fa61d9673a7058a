"""The lifecycle of a held call: one transition table, and the functions that move a call along it (PURE).

Every function takes a held call and the time, and returns the changed call or raises. Stores contain no rules: a caller
computes the change here and then swaps.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from approvals.errors import AlreadyDecided, IllegalTransition
from approvals.model import Decision, HeldCall, Outcome, Review, State
from approvals.summaries import Summary

TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset(
        {State.APPROVED, State.DENIED, State.EXPIRED, State.CANCELLED, State.VOIDED},
    ),
    State.APPROVED: frozenset({State.FORWARDING, State.EXPIRED, State.CANCELLED, State.VOIDED}),
    State.FORWARDING: frozenset(
        {State.COMPLETED, State.UPSTREAM_ERROR, State.NOT_SENT, State.IN_DOUBT},
    ),
    # Its runner may still learn the outcome; a person's resolution is final.
    State.IN_DOUBT: frozenset(
        {State.COMPLETED, State.UPSTREAM_ERROR, State.NOT_SENT, State.RESOLVED},
    ),
    State.DENIED: frozenset(),
    State.EXPIRED: frozenset(),
    State.CANCELLED: frozenset(),
    State.VOIDED: frozenset(),
    State.COMPLETED: frozenset(),
    State.UPSTREAM_ERROR: frozenset(),
    State.NOT_SENT: frozenset(),
    State.RESOLVED: frozenset(),
}

#: Final states, and in_doubt, which ends with a late answer or a person's finding.
SETTLED = frozenset(state for state, after in TRANSITIONS.items() if not after) | {State.IN_DOUBT}
#: Seconds in which the session that received an outcome may receive it once more.
REPEATED_FOR = 30.0
#: States in which a call waits or runs.
OPEN = tuple(state for state in State if state not in SETTLED)
#: States in which no other call with the same key may be added.
OPEN_OR_IN_DOUBT = (*OPEN, State.IN_DOUBT)
#: States whose deadline the sweep watches.
TIMED = frozenset({State.PENDING, State.APPROVED})


#: The note of a waiting or running call that a restored copy of the store brought back.
RESTORED = (
    "The store was restored from a copy, so this call may have run since. Check that before you ask again."
)
#: Stands in place of the key of the continuing call when the call cannot be continued.
NEVER = "never"


def last_changed_at(call: HeldCall) -> float:
    """Return the time of the last change of *call*."""
    return max(call.created_at, call.decided_at or 0.0, call.settled_at or 0.0)


def advance(call: HeldCall, to: State, now: float, **changes: Any) -> HeldCall:
    """Return *call* in state *to* with the next version, or raise `IllegalTransition`."""
    if to not in TRANSITIONS[call.state]:
        raise IllegalTransition(f"a call that is {call.state} cannot become {to}")
    ended = {"settled_at": now} if to in SETTLED else {}
    decided = {"decided_at": now} if call.state is State.PENDING else {}
    return replace(call, state=to, version=call.version + 1, **(ended | decided | changes))


def try_advance(call: HeldCall, to: State, now: float, *, note: str) -> HeldCall | None:
    """Return *call* in state *to*, or None when that transition does not exist."""
    return advance(call, to, now, note=note) if to in TRANSITIONS[call.state] else None


def update(call: HeldCall, **changes: Any) -> HeldCall:
    """Return *call* with other fields changed (collected, revealed) and the next version, in the same state."""
    return replace(call, version=call.version + 1, **changes)


def review(call: HeldCall, given: Review) -> HeldCall:
    """Add a review: one denial denies the call, *needed* approvals of different people approve it.

    The same answer of the same person returns *call* itself. Raises `AlreadyDecided` when the call is not pending or has
    expired (`given.at < expires_at` is in time).
    """
    if call.state is not State.PENDING or given.at >= call.expires_at:
        raise AlreadyDecided(
            f"This call was already {call.state}."
            if call.state is not State.PENDING
            else "This call has expired."
        )
    if any(past.approver == given.approver and past.answer is given.answer for past in call.reviews):
        return call
    reviewed = replace(call, reviews=(*call.reviews, given))
    if given.answer is Decision.DENY:
        return advance(reviewed, State.DENIED, given.at)
    if not reviewed.enough:
        return update(reviewed)
    return advance(reviewed, State.APPROVED, given.at, expires_at=given.at + call.terms.approved_for)


def can_continue(call: HeldCall | Summary, now: float) -> bool:
    """Return whether a call may be continued under its approval: it ran, within `approved_for`."""
    return call.state is State.COMPLETED and _is_recent(call.settled_at, call.terms.approved_for, now)


def approve_continuation(call: HeldCall, parent: HeldCall, now: float) -> HeldCall:
    """Return a new call with the approvals of *parent*, which it continues."""
    return replace(
        call,
        state=State.APPROVED,
        reviews=parent.reviews,
        decided_at=now,
        expires_at=now + parent.terms.approved_for,
    )


def end_restored(call: HeldCall, now: float) -> HeldCall | None:
    """Return the end of a call in a restored copy of the store, or None to keep it: it may have run since the copy."""
    if call.state in TIMED:
        return advance(call, State.VOIDED, now, note=RESTORED)
    if call.state is State.FORWARDING:
        return advance(call, State.IN_DOUBT, now, note=RESTORED)
    if can_continue(call, now) and call.continued != NEVER:
        return update(call, continued=NEVER)
    return None


def expire(call: HeldCall, now: float) -> HeldCall | None:
    """Return the expired call, or None when it is not due or cannot expire."""
    if call.state not in TIMED or now < call.expires_at:
        return None
    return advance(call, State.EXPIRED, now)


def claim(call: HeldCall, runner: str, now: float) -> HeldCall:
    """Return an approved call as claimed by the replica *runner*."""
    return advance(call, State.FORWARDING, now, runner=runner)


def doubt(call: HeldCall, runner: str, now: float, *, note: str) -> HeldCall | None:
    """Return the call in doubt if the lost replica *runner* had claimed it; None to leave it unchanged."""
    return try_advance(call, State.IN_DOUBT, now, note=note) if call.runner == runner else None


def finish(call: HeldCall, outcome: Outcome, runner: str, now: float) -> HeldCall:
    """Return the call with the answer that *runner* received, which may come after the call was given up.

    Raises `IllegalTransition` when another replica claimed the call: only its runner has the answer.
    """
    if call.runner != runner:
        raise IllegalTransition("only the replica that claimed a call may end its run")
    to = State.UPSTREAM_ERROR if outcome.is_error else State.COMPLETED
    return advance(call, to, now, outcome=outcome, note="")


def can_repeat(call: HeldCall, now: float, session: str) -> bool:
    """Return whether *session*, which just received the outcome, may receive it once more."""
    just_sent = _is_recent(call.collected_at, REPEATED_FOR, now)
    return just_sent and call.collected_by == session and call.outcome is not None and not call.repeated


def is_still_denied(call: HeldCall, now: float) -> bool:
    """Return whether a person's denial still answers a repeated call."""
    return call.state is State.DENIED and _is_recent(call.settled_at, call.terms.denied_for, now)


def can_join(call: HeldCall, now: float) -> bool:
    """Return whether a repeated call joins this one: it waits, runs, or has an answer that was not collected."""
    if call.state not in SETTLED:
        return call.state not in TIMED or now < call.expires_at
    if call.state is State.IN_DOUBT:
        return True
    return not call.collected and _is_recent(call.settled_at, call.terms.approved_for, now)


def _is_recent(at: float | None, seconds: float, now: float) -> bool:
    """Return whether *at* is within the last *seconds*. A time after *now* comes from before a reset of the clock."""
    return at is not None and at <= now < at + seconds
