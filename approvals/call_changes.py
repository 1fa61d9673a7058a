"""The one way to change a held call: read it, apply a lifecycle transition, swap, then notify.

On `Conflict` the call is read again and the transition is computed again. So the first decision wins, and a later one
applies to the call's new state.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from approvals import call_events, lifecycle
from approvals.call_events import GATEWAY
from approvals.clock import Clock
from approvals.errors import Conflict, UnknownCall
from approvals.identity import Directory
from approvals.model import CallId, HeldCall, State
from approvals.replica import Replica
from approvals.store import ApprovalStore
from approvals.summaries import Summary

#: How many summaries are read at a time.
PAGE = 200
#: Returns the next value of a call, or None to leave it unchanged; raises an `ApprovalError` to refuse.
Change = Callable[[HeldCall], HeldCall | None]


class CallChanges:
    """Reads and changes held calls in a store."""

    def __init__(
        self,
        store: ApprovalStore,
        directory: Directory,
        *,
        clock: Clock,
        wall: Clock | None = None,
        monotonic: Clock | None = None,
    ) -> None:
        self.store = store
        self.directory = directory
        #: The time of deadlines, limits and claims; it never goes back.
        self.clock = clock
        #: The time of audit events.
        self.wall = wall or clock
        #: Measures waits.
        self.monotonic = monotonic or clock
        #: This service among those that share the store.
        self.replica = Replica(store, self.clock)
        #: The calls that run in this process.
        self.running: Counter[CallId] = Counter()
        #: The time until which each of them may be sent.
        self.send_before: dict[CallId, float] = {}

    async def get(self, call_id: CallId) -> HeldCall:
        """Return the call; raises `UnknownCall`."""
        call = await self.store.get(call_id)
        if call is None:
            raise UnknownCall
        return call

    async def _summaries(self, state: State) -> AsyncIterator[Summary]:
        """Yield the summaries of the calls in a state, newest first."""
        before: CallId | None = None
        while True:
            page = await self.store.summaries((state,), limit=PAGE, before=before)
            for call in page.items:
                yield call
            if (before := page.next) is None:
                return

    async def _change(
        self,
        call_id: CallId,
        change: Change,
        *,
        actor: str = GATEWAY,
        kind: str = "",
        **detail: Any,
    ) -> HeldCall:
        """Swap the call for the value that *change* returns, with its event; try again after each conflict."""
        while True:
            old = await self.get(call_id)
            new = change(old)
            if new is None or new is old:
                return old
            event = call_events.change_event(
                new, actor, self.wall(), kind or call_events.event_kind(old, new), was=old.state, **detail
            )
            try:
                await self.store.swap(old, new, event)
            except Conflict:
                continue
            return new

    def _advance(self, to: State, why: str) -> Change:
        """Return the change to state *to*, which leaves the call unchanged if that transition does not exist."""
        return lambda call: lifecycle.try_advance(call, to, self.clock(), note=why)
