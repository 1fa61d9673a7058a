"""The law of a held call's states: one table, and the functions that move a call along it.

Pure: every function takes a held call and the time, and returns the changed call or raises. Stores know no
rules; whoever wants a change asks here first and then swaps.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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
    # The server may answer after all; what a person found out is final.
    State.IN_DOUBT: frozenset({State.COMPLETED, State.UPSTREAM_ERROR, State.RESOLVED}),
    State.DENIED: frozenset(),
    State.EXPIRED: frozenset(),
    State.CANCELLED: frozenset(),
    State.VOIDED: frozenset(),
    State.COMPLETED: frozenset(),
    State.UPSTREAM_ERROR: frozenset(),
    State.NOT_SENT: frozenset(),
    State.RESOLVED: frozenset(),
}

#: States in which nothing changes any more, except that a doubt ends by a late answer or by a person's finding.
SETTLED = frozenset(state for state, after in TRANSITIONS.items() if not after) | {State.IN_DOUBT}
#: Seconds for which an outcome that was given is given once more to who asks for the same call.
REPEATED_FOR = 30.0
#: States in which a call waits or runs.
OPEN = tuple(state for state in State if state not in SETTLED)
#: States whose deadline the sweep watches.
TIMED = frozenset({State.PENDING, State.APPROVED})


#: Why a call that a copy of the store brought back is over.
PUT_BACK = (
    "The store was put back from a copy, so this call may have run since. Check that before asking again."
)
#: In place of the key of the call that continues another: none may.
NEVER = "never"


def last_changed_at(call: HeldCall) -> float:
    """Return the latest time that something happened to *call*."""
    return max(call.created_at, call.decided_at or 0.0, call.settled_at or 0.0)


def advance(call: HeldCall, to: State, now: float, **changes: Any) -> HeldCall:
    """Return *call* in state *to*, one version on, or raise `IllegalTransition`."""
    if to not in TRANSITIONS[call.state]:
        raise IllegalTransition(f"a call that is {call.state} cannot become {to}")
    ended = {"settled_at": now} if to in SETTLED else {}
    decided = {"decided_at": now} if call.state is State.PENDING else {}
    return replace(call, state=to, version=call.version + 1, **(ended | decided | changes))


def update(call: HeldCall, **changes: Any) -> HeldCall:
    """Return *call* with facts changed that are no transition (attended, collected), one version on."""
    return replace(call, version=call.version + 1, **changes)


def review(call: HeldCall, given: Review) -> HeldCall:
    """Add *given* and decide if it is the last one needed: one deny ends it, *needed* distinct yeses approve.

    A second yes of the same person changes nothing and returns *call* itself. Raises `AlreadyDecided` when the
    call is not pending or its time is over (`now < expires_at` is in time).
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
    """Say whether a call may still be continued under its approval: it ran, and not too long ago."""
    return call.state is State.COMPLETED and _lately(call.settled_at, call.terms.approved_for, now)


def approve_continuation(call: HeldCall, parent: HeldCall, now: float) -> HeldCall:
    """Return a new call as approved by those who approved *parent*, which it continues."""
    return replace(
        call,
        state=State.APPROVED,
        reviews=parent.reviews,
        decided_at=now,
        expires_at=now + parent.terms.approved_for,
    )


def end_restored(call: HeldCall, now: float) -> HeldCall | None:
    """Return what a call in a copy of the store becomes, None when it stays: what ran since the copy must not run again."""
    if call.state in TIMED:
        return advance(call, State.VOIDED, now, note=PUT_BACK)
    if call.state is State.FORWARDING:
        return advance(call, State.IN_DOUBT, now, note=PUT_BACK)
    if can_continue(call, now) and call.continued != NEVER:
        return update(call, continued=NEVER)
    return None


def expire(call: HeldCall, now: float) -> HeldCall | None:
    """Return the expired call when its time is over and it still can expire, else None."""
    if call.state not in TIMED or now < call.expires_at:
        return None
    return advance(call, State.EXPIRED, now)


def finish(call: HeldCall, outcome: Outcome, now: float) -> HeldCall:
    """Store what the server answered, be it after the call was given up."""
    to = State.UPSTREAM_ERROR if outcome.is_error else State.COMPLETED
    return advance(call, to, now, outcome=outcome, note="")


def put_in_doubt(call: HeldCall, why: str, now: float) -> HeldCall | None:
    """Return a running call as one in doubt; None for a call that does not run any more."""
    return advance(call, State.IN_DOUBT, now, note=why) if call.state is State.FORWARDING else None


def can_repeat(call: HeldCall, now: float, session: str) -> bool:
    """Say whether the session that was just given the outcome gets it once more when it asks for the same call."""
    just_given = _lately(call.collected_at, REPEATED_FOR, now)
    return just_given and call.collected_by == session and call.outcome is not None and not call.repeated


def is_still_denied(call: HeldCall, now: float) -> bool:
    """Say whether a person's denial still answers the same call asked again."""
    return call.state is State.DENIED and _lately(call.settled_at, call.terms.denied_for, now)


def can_join(call: HeldCall, now: float) -> bool:
    """Say whether the same call asked again is this one: it waits, runs, or has an answer nobody fetched yet."""
    if call.state not in SETTLED:
        return call.state not in TIMED or now < call.expires_at
    if call.state is State.IN_DOUBT:
        return True
    return not call.collected and _lately(call.settled_at, call.terms.approved_for, now)


def _lately(at: float | None, seconds: float, now: float) -> bool:
    """Say whether something happened within so many *seconds*. A time after *now* is that of a clock that was reset since."""
    return at is not None and at <= now < at + seconds
