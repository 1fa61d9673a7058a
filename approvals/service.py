"""Holds, reviews, runs and expires calls. Each change reads the call, computes a transition, swaps, and only then notifies.

Channels, inbox, API, CLI and the gateway use this one service. `reviews` has the approvers' actions, `runs` the one
run of a call, `call_changes` the change itself.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress

from msgspec.structs import replace

from approvals import call_events, lifecycle
from approvals.call_events import GATEWAY
from approvals.clock import KEEP_EVERY, Clock
from approvals.digest import sha256
from approvals.errors import AlreadyDecided, Conflict
from approvals.identity import Directory
from approvals.model import CallId, HeldCall, State
from approvals.presence import Presence
from approvals.quotas import Quotas
from approvals.reviews import Reviews
from approvals.runs import Runs
from approvals.store import ApprovalStore
from approvals.summaries import Summary
from approvals.wakeups import Wakeups


class ApprovalService(Reviews, Runs):
    """Holds, reviews, runs and expires calls."""

    def __init__(
        self,
        store: ApprovalStore,
        directory: Directory,
        *,
        clock: Clock,
        wall: Clock | None = None,
        monotonic: Clock | None = None,
    ) -> None:
        super().__init__(store, directory, clock=clock, wall=wall, monotonic=monotonic)
        self.wakeups = Wakeups()
        self.quotas = Quotas()
        self.presence = Presence(store, self.replica, self.clock)
        #: When the time is next saved to the store.
        self._kept_until = 0.0

    async def hold(self, call: HeldCall) -> HeldCall:
        """Store a new held call and return it; return the open call of the same key instead, if there is one.

        Raises `QuotaExceeded`, or a subclass, when the call would exceed a limit of its agent or of all agents.
        """
        limits = self.quotas.limits(call.call.agent, call.created_at)
        while (twin := await self.store.find(call.key)) is None or not lifecycle.can_join(twin, self.clock()):
            if twin is not None:  # overdue, but not yet swept: it would conflict with the new call
                await self._change(twin.id, lambda open_call: lifecycle.expire(open_call, self.clock()))
            held = call if twin is None else replace(call, twin=twin.id, twin_at=twin.settled_at)
            try:
                event = call_events.change_event(held, call.call.agent, self.wall(), f"hold.{held.state}")
                await self.store.add(held, event, limits=limits)
            except Conflict:
                continue
            return held
        return twin

    async def continue_call(self, parent: CallId, call: HeldCall) -> HeldCall:
        """Continue an approved call whose server asked the client for input, without a new approval.

        The same answers give the same call. Raises `AlreadyDecided` for other answers: one approval allows one run.
        """
        child = replace(call, key=sha256(f"{parent}{call.key}".encode()), continues=parent)

        def mark(old: HeldCall) -> HeldCall | None:
            if not lifecycle.can_continue(old, self.clock()):
                raise AlreadyDecided("This call can no longer be continued: its time is over.")
            if old.continued not in {"", child.key}:
                raise AlreadyDecided("This call was already continued with other answers.")
            return None if old.continued else lifecycle.update(old, continued=child.key)

        marked = await self._change(parent, mark, kind="hold.continued")
        child = lifecycle.approve_continuation(child, marked, self.clock())
        while (known := await self.store.find(child.key)) is None:
            with suppress(Conflict):
                event = call_events.change_event(
                    child, GATEWAY, self.wall(), "hold.approved", continues=parent
                )
                await self.store.add(child, event)
        return known

    async def cancel(self, call_id: CallId, why: str, *, actor: str) -> HeldCall:
        """Cancel a call that was not sent yet; any other call stays as it is."""
        return await self._change(call_id, self._advance(State.CANCELLED, why), actor=actor)

    async def void(self, call_id: CallId, why: str) -> HeldCall:
        """End a call that was not sent yet, since its policy or tool definition changed; any other stays as it is."""
        return await self._change(call_id, self._advance(State.VOIDED, why))

    async def attach_task(self, call_id: CallId) -> HeldCall:
        """Record that the agent holds a task handle: the call runs as soon as it is approved."""
        return await self._change(
            call_id, lambda call: None if call.task else lifecycle.update(call, task=True), kind="hold.task"
        )

    async def bind_server(self, call_id: CallId, identity: str, address: str) -> HeldCall:
        """Bind a waiting call without a server identity (an older version held it) to its server. Its digest stays valid."""

        def bind(call: HeldCall) -> HeldCall | None:
            if call.identity or call.state not in lifecycle.TIMED:
                return None
            return lifecycle.update(call, identity=identity, address=address)

        return await self._change(call_id, bind, kind="hold.bound")

    async def record_collected(self, call_id: CallId, session: str = "") -> HeldCall:
        """Record that the agent has received the final answer. in_doubt is not final; its resolution follows.

        *session* is the session that the answer was written to; "" when it cannot be lost, as with a task.
        """

        def collect(call: HeldCall) -> HeldCall | None:
            if call.collected or call.state is State.IN_DOUBT:
                return None
            given = {"collected_at": self.clock(), "collected_by": session} if session else {}
            return lifecycle.update(call, collected=True, **given)

        return await self._change(call_id, collect, kind="hold.collected")

    async def claim_repeat(self, call_id: CallId, session: str) -> HeldCall | None:
        """Record that an outcome is sent a second time, and return the call; None when that is not allowed."""
        won = False

        def repeat(call: HeldCall) -> HeldCall | None:
            nonlocal won
            won = lifecycle.can_repeat(call, self.clock(), session)
            return lifecycle.update(call, repeated=True) if won else None

        call = await self._change(call_id, repeat, kind="hold.repeated")
        return call if won else None

    # Waiting.

    async def wait_for_change(self, call: HeldCall, seconds: float) -> HeldCall:
        """Wait at most *seconds* until the stored call is newer than *call*; return the stored call."""
        with self.wakeups.listen(call.id) as woken:
            if (now := await self.newest(call)).version > call.version:
                return now
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await woken.wait()
        return await self.newest(call)

    async def newest(self, call: HeldCall) -> HeldCall:
        """Return the stored call; it may be large, so it is read only if its version differs."""
        return call if await self.store.version(call.id) == call.version else await self.get(call.id)

    def attend(self, call_id: CallId) -> AbstractContextManager[None]:
        """Mark a call as attended while the context is open: a client waits for it."""
        return self.presence.attend(call_id)

    async def find_attended(self, calls: Sequence[HeldCall | Summary]) -> frozenset[CallId]:
        """Return those of *calls* for which a client waits at any replica, or has just begun to."""
        return await self.presence.find_attended(calls)

    # The sweep.

    async def open_calls(self, *, server: str = "", tool: str = "") -> Sequence[Summary]:
        """Return the summaries of the open calls of a server or tool, or of all."""
        return await self.store.open_summaries(server=server, tool=tool)

    async def sweep(self) -> None:
        """Bring the store up to date: expired calls, lost runs, this replica's lease and waiting clients.

        Reads only what changed, so its cost does not depend on the number of open calls.
        """
        await self.replica.renew()
        self._keep_time()
        await self.presence.save()
        for call_id in await self.store.due(self.clock()):
            await self._change(call_id, lambda call: lifecycle.expire(call, self.clock()))
        await self.doubt_lost_runs()

    def _keep_time(self) -> None:
        """Save the time to the store every KEEP_EVERY seconds, so that it continues after a restart."""
        if (now := self.clock()) >= self._kept_until:
            self._kept_until = now + KEEP_EVERY
            self.store.keep_time(now)

    async def end_restored(self) -> Mapping[str, int]:
        """End the calls that a restored copy of the store brought back; return the number of calls by their new state."""
        states: Counter[str] = Counter()
        for call in await self.open_calls():
            states[(await self._change(call.id, self._end_restored)).state] += 1
        async for call in self._summaries(State.COMPLETED):
            if lifecycle.can_continue(call, self.clock()):
                await self._change(call.id, self._end_restored, kind="hold.continued")
        return states

    def _end_restored(self, call: HeldCall) -> HeldCall | None:
        return lifecycle.end_restored(call, self.clock())
