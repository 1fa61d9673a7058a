"""Everything that can happen to a held call, each as: read, ask the law, swap, and only then tell.

On `Conflict` the call is read again and the law asked anew, so the first decision wins and later ones are told
what became of it. Channels, inbox, API, CLI and the gateway all use this one service.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from approvals import call_events, client_meta, lifecycle
from approvals.call_events import GATEWAY
from approvals.clock import KEEP, Clock
from approvals.digest import sha256
from approvals.errors import (
    AlreadyDecided,
    ApprovalError,
    Conflict,
    NotRevealed,
    ReasonNeeded,
    StaleView,
    UnknownCall,
)
from approvals.identity import Directory
from approvals.lifecycle import OPEN
from approvals.model import (
    Approver,
    CallId,
    Decision,
    HeldCall,
    Outcome,
    Review,
    State,
)
from approvals.quotas import Quotas
from approvals.store import Store
from approvals.summaries import Summary, summary
from approvals.wakeups import Wakeups

#: The longest reason a person may give, in bytes of UTF-8.
MAX_REASON = 4096

#: How many settled calls are looked at at once.
PAGE = 200


#: Turns a call into its next value, or None to leave it as it is.
Change = Callable[[HeldCall], HeldCall | None]


class ApprovalService:
    """Holds, reviews, claims, finishes and expires calls."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        *,
        clock: Clock,
        wall: Clock | None = None,
        monotonic: Clock | None = None,
    ) -> None:
        self.store = store
        self.directory = directory
        self.wakeups = Wakeups()
        #: What deadlines, limits and claims go by; it never goes back.
        self.clock = clock
        #: What the audit trail is dated by.
        self.wall = wall or clock
        #: What waits are measured by.
        self.monotonic = monotonic or clock
        #: Until when the time need not be kept in the store again.
        self._kept_until = 0.0
        self.quotas = Quotas()
        self._attending: Counter[CallId] = Counter()
        self._running: Counter[CallId] = Counter()

    async def get(self, call_id: CallId) -> HeldCall:
        """Return the call, or raise `UnknownCall`."""
        call = await self.store.get(call_id)
        if call is None:
            raise UnknownCall
        return call

    async def hold(self, call: HeldCall) -> HeldCall:
        """Store a new held call and return it, or the open one of the same key that was there first.

        Raises `TooMany`, or one of its kinds, when the calls of the agent, or of all agents, leave no room for it.
        """
        caps = self.quotas.limits(call.call.agent, call.created_at)
        while (twin := await self.store.find(call.key)) is None or not lifecycle.can_join(twin, self.clock()):
            if twin is not None:  # one that is over, but that no sweep has closed yet, would stand in the way
                await self._change(twin.id, lambda open_call: lifecycle.expire(open_call, self.clock()))
            held = call if twin is None else replace(call, twin=twin.id, twin_at=twin.settled_at)
            try:
                event = call_events.changed(held, call.call.agent, self.wall(), f"hold.{held.state}")
                await self.store.add(held, event, limits=caps)
            except Conflict:
                continue
            return held
        return twin

    async def continue_call(self, parent: CallId, call: HeldCall) -> HeldCall:
        """Continue an approved call that its server answered with a question, without asking people again.

        The same answers given again are the same call. Raises `AlreadyDecided` when other answers were given before:
        one approval is one run.
        """
        child = replace(call, key=sha256(f"{parent}{call.key}".encode()), continues=parent)

        def mark(old: HeldCall) -> HeldCall | None:
            if not lifecycle.can_continue(old, self.clock()):
                raise AlreadyDecided("The time to go on with this call is over.")
            if old.continued not in {"", child.key}:
                raise AlreadyDecided("This call was already continued with other answers.")
            return None if old.continued else lifecycle.update(old, continued=child.key)

        was = await self._change(parent, mark, kind="hold.continued")
        child = lifecycle.approve_continuation(child, was, self.clock())
        while (known := await self.store.find(child.key)) is None:
            with suppress(Conflict):
                event = call_events.changed(child, GATEWAY, self.wall(), "hold.approved", continues=parent)
                await self.store.add(child, event)
        return known

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
        """Record what *approver* said of the call and return it as it is now.

        An approval needs the *digest* of what they looked at; a denial does not. Raises `UnknownCall`, `NotAnApprover`,
        `OwnRequest`, `StaleView`, `NotRevealed`, `ReasonNeeded` or `AlreadyDecided`. The same answer given twice by one
        person changes nothing.
        """
        given = Review(
            approver=approver.name, answer=answer, reason=_trimmed(reason), at=self.clock(), via=via
        )

        def decide(call: HeldCall) -> HeldCall | None:
            self.directory.may_review(approver, call)
            if answer is Decision.APPROVE and digest != call.digest:
                raise StaleView
            if any(past.approver == given.approver and past.answer is answer for past in call.reviews):
                return None
            if answer is Decision.DENY and not given.reason:
                raise ReasonNeeded
            reviewed = lifecycle.review(call, given)
            if answer is Decision.APPROVE and not _has_seen(approver, call):
                raise NotRevealed
            return reviewed

        try:
            return await self._change(
                call_id, decide, actor=approver.name, via=via, answer=answer, reason=given.reason
            )
        except UnknownCall:
            raise
        except ApprovalError as refused:
            self.store.post(call_events.refusal(call_id, given, refused, self.wall()))
            # Who comes too late, but before a sweep, finds the call as what it is.
            await self._change(call_id, lambda call: lifecycle.expire(call, self.clock()))
            raise

    async def reveal(self, call_id: CallId, approver: Approver, *, via: str) -> HeldCall:
        """Record that *approver* looks at the hidden values of a call; from then on they may approve it.

        Raises `UnknownCall`, `NotAnApprover` or `OwnRequest`.
        """

        def look(call: HeldCall) -> HeldCall | None:
            self.directory.may_review(approver, call)
            if approver.name in call.revealed:
                return None
            return lifecycle.update(call, revealed=(*call.revealed, approver.name))

        return await self._change(call_id, look, actor=approver.name, kind="arguments.revealed", via=via)

    async def claim(
        self, call_id: CallId, objection: Callable[[HeldCall], str | None]
    ) -> tuple[HeldCall, bool]:
        """Take an approved call to run it; exactly one caller gets it in state `forwarding` and True.

        *objection* says why it may no longer run (policy or definition changed); such a call is voided. Everyone
        but the one winner gets the call in whatever state it is in, and False.
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

        # Counted before the commit, so that a sweep never takes a call that runs here for one a crash left behind.
        self._running[call_id] += 1
        try:
            call = await self._change(call_id, take)
        except BaseException:
            won = False
            raise
        finally:
            if not won:
                self._released(call_id)
        return call, won

    def _released(self, call_id: CallId) -> None:
        self._running[call_id] -= 1
        if not self._running[call_id]:
            del self._running[call_id]

    async def finish(self, call_id: CallId, outcome: Outcome) -> HeldCall:
        """Store what the server answered to a call that was claimed here.

        The answer counts also after the call was given up. After a person's finding it is an audit event only.
        """

        def answered(call: HeldCall) -> HeldCall | None:
            return None if call.state is State.RESOLVED else lifecycle.finish(call, outcome, self.clock())

        call = await self._end(call_id, answered, failed=outcome.failed)
        if call.state is State.RESOLVED:
            self.store.post(call_events.late(call, outcome, self.wall()))
        return call

    async def record_not_sent(self, call_id: CallId, why: str) -> HeldCall:
        """Record that not one byte of a claimed call left this process, unless it was given up meanwhile."""

        def unsent(call: HeldCall) -> HeldCall | None:
            if State.NOT_SENT not in lifecycle.TRANSITIONS[call.state]:
                return None
            return lifecycle.advance(call, State.NOT_SENT, self.clock(), note=why)

        return await self._end(call_id, unsent)

    async def record_in_doubt(self, call_id: CallId, why: str) -> HeldCall:
        """End the run of a claimed call that may or may not have run."""
        return await self._end(call_id, lambda call: lifecycle.put_in_doubt(call, why, self.clock()))

    async def record_unanswered(self, call_id: CallId, why: str) -> HeldCall:
        """Put a running call in doubt; its runner may still bring the answer."""
        return await self._change(call_id, lambda call: lifecycle.put_in_doubt(call, why, self.clock()))

    async def give_up(self, call_id: CallId, approver: Approver, reason: str, *, via: str) -> HeldCall:
        """Stop waiting for the server's answer to a running call, at a person's word: the call is in doubt.

        Raises `UnknownCall`, `NotAnApprover`, `OwnRequest`, `ReasonNeeded`, or `AlreadyDecided` for a call that does not run.
        """
        if not (said := _trimmed(reason)):
            raise ReasonNeeded("Say why you give the call up.")

        def leave(call: HeldCall) -> HeldCall | None:
            self.directory.may_review(approver, call)
            if call.state is not State.FORWARDING:
                raise AlreadyDecided(f"This call is {call.state}, not running.")
            return lifecycle.put_in_doubt(call, f"{approver.name} gave it up: {said}", self.clock())

        return await self._change(call_id, leave, actor=approver.name, via=via, reason=said)

    async def _end(self, call_id: CallId, change: Change, **detail: Any) -> HeldCall:
        try:
            return await self._change(call_id, change, **detail)
        finally:
            self._released(call_id)

    async def cancel(self, call_id: CallId, why: str, *, actor: str) -> HeldCall:
        """End a call that was not sent yet; one that is past that stays as it is."""

        def stop(call: HeldCall) -> HeldCall | None:
            if State.CANCELLED not in lifecycle.TRANSITIONS[call.state]:
                return None
            return lifecycle.advance(call, State.CANCELLED, self.clock(), note=why)

        return await self._change(call_id, stop, actor=actor)

    async def attach_task(self, call_id: CallId) -> HeldCall:
        """Record that the agent holds a task handle: the call runs as soon as it is approved."""
        return await self._change(
            call_id, lambda call: None if call.task else lifecycle.update(call, task=True), kind="hold.task"
        )

    async def bind_server(self, call_id: CallId, identity: str, address: str) -> HeldCall:
        """Bind a call that was held before servers had an identity to that of its server now. What was shown stays valid."""

        def bound(call: HeldCall) -> HeldCall | None:
            if call.identity or call.state not in lifecycle.TIMED:
                return None
            return lifecycle.update(call, identity=identity, address=address)

        return await self._change(call_id, bound, kind="hold.bound")

    async def void(self, call_id: CallId, why: str) -> HeldCall:
        """End a call whose policy or tool definition changed while it waited."""

        def stop(call: HeldCall) -> HeldCall | None:
            if State.VOIDED not in lifecycle.TRANSITIONS[call.state]:
                return None
            return lifecycle.advance(call, State.VOIDED, self.clock(), note=why)

        return await self._change(call_id, stop)

    async def resolve(self, call_id: CallId, approver: Approver, reason: str, *, via: str) -> HeldCall:
        """Record what a person found out about a call in doubt."""
        if not (said := _trimmed(reason)):
            raise ReasonNeeded("Say what you found: did it run or not?")

        def settle(call: HeldCall) -> HeldCall:
            self.directory.may_review(approver, call)
            if call.state is not State.IN_DOUBT:
                raise AlreadyDecided(f"This call is {call.state}, not in doubt.")
            return lifecycle.advance(call, State.RESOLVED, self.clock(), note=f"{approver.name}: {said}")

        return await self._change(call_id, settle, actor=approver.name, via=via, reason=said)

    async def record_collected(self, call_id: CallId, session: str = "") -> HeldCall:
        """Record that the agent has been given the final answer. A doubt is none: what a person finds out follows.

        *session* is the one that it was written to; "" when it cannot be lost, as with a task.
        """

        def taken(call: HeldCall) -> HeldCall | None:
            if call.collected or call.state is State.IN_DOUBT:
                return None
            given = {"collected_at": self.clock(), "collected_by": session} if session else {}
            return lifecycle.update(call, collected=True, **given)

        return await self._change(call_id, taken, kind="hold.collected")

    async def claim_repeat(self, call_id: CallId, session: str) -> HeldCall | None:
        """Record that an outcome is given a second time, and return the call; None when it may not be."""
        won = False

        def again(call: HeldCall) -> HeldCall | None:
            nonlocal won
            won = lifecycle.can_repeat(call, self.clock(), session)
            return lifecycle.update(call, repeated=True) if won else None

        call = await self._change(call_id, again, kind="hold.repeated")
        return call if won else None

    async def wait_for_change(self, call: HeldCall, seconds: float) -> HeldCall:
        """Wait until *call* is newer than the one given, at most *seconds*, and return it as it is then."""
        with self.wakeups.listen(call.id) as woken:
            if (now := await self._newest(call)).version > call.version:
                return now
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await woken.wait()
        return await self._newest(call)

    async def _newest(self, call: HeldCall) -> HeldCall:
        """Return the call as it is now; it is read again only when it has changed, since it may be large."""
        return call if await self.store.version(call.id) == call.version else await self.get(call.id)

    @contextmanager
    def attend(self, call_id: CallId) -> Iterator[None]:
        """Mark that somebody on the agent's side waits for this call, for as long as the context is open."""
        self._attending[call_id] += 1
        try:
            yield
        finally:
            self._attending[call_id] -= 1
            if not self._attending[call_id]:
                del self._attending[call_id]

    async def open_calls(self, *, server: str = "", tool: str = "") -> Sequence[Summary]:
        """Return the summaries of the open calls, narrowed by what is given."""
        return await self.store.summaries(OPEN, server=server, tool=tool)

    async def sweep(self) -> Sequence[Summary]:
        """Bring every open call to what it should be by now (expired, in doubt, attended or not); returns the open ones."""
        self._keep_time()
        for call in await self.store.due(self.clock()):
            await self._change(call.id, lambda call: lifecycle.expire(call, self.clock()))
        swept = [
            summary(await self._change(call.id, self._as_it_is)) if self._is_off(call) else call
            for call in await self.open_calls()
        ]
        return [call for call in swept if call.state in OPEN]

    async def end_restored(self) -> Mapping[str, int]:
        """End what a copy of the store brought back (`lifecycle.put_back`); returns how many calls came to which state."""
        came_to: Counter[str] = Counter()
        for call in await self.open_calls():
            came_to[(await self._change(call.id, self._put_back)).state] += 1
        last: CallId | None = None
        while page := await self.store.summaries((State.COMPLETED,), limit=PAGE, before=last):
            for call in page:
                if lifecycle.can_continue(call, self.clock()):
                    await self._change(call.id, self._put_back, kind="hold.continued")
            last = page[-1].id
        return came_to

    def _put_back(self, call: HeldCall) -> HeldCall | None:
        return lifecycle.end_restored(call, self.clock())

    def _keep_time(self) -> None:
        """Keep the time in the store now and then, so that a restart goes on from there."""
        if (now := self.clock()) >= self._kept_until:
            self._kept_until = now + KEEP
            self.store.keep_time(now)

    def _is_off(self, call: HeldCall | Summary) -> bool:
        """Say whether a call is not what it should be: on its way and left behind, or attended otherwise."""
        if call.state is State.FORWARDING:
            return call.id not in self._running
        return call.state in lifecycle.TIMED and call.attended != (call.id in self._attending)

    def _as_it_is(self, call: HeldCall) -> HeldCall | None:
        if not self._is_off(call):
            return None
        if call.state is State.FORWARDING:
            why = "The gateway stopped while this call was on its way."
            return lifecycle.advance(call, State.IN_DOUBT, self.clock(), note=why)
        return lifecycle.update(call, attended=not call.attended)

    async def _change(
        self,
        call_id: CallId,
        change: Change,
        *,
        actor: str = GATEWAY,
        kind: str = "",
        **detail: Any,
    ) -> HeldCall:
        """Swap the call for what *change* makes of it, asking again after each conflict."""
        while True:
            old = await self.get(call_id)
            new = change(old)
            if new is None or new is old:
                return old
            event = call_events.changed(
                new, actor, self.wall(), kind or call_events.kind_of(old, new), was=old.state, **detail
            )
            try:
                await self.store.swap(old, new, event)
            except Conflict:
                continue
            return new


def _has_seen(approver: Approver, call: HeldCall) -> bool:
    """Say whether *approver* was shown all of a call: nothing in it is hidden, or they revealed it."""
    return approver.name in call.revealed or not client_meta.hidden_values(call.call)


def _trimmed(reason: str) -> str:
    return reason.strip().encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore")
