"""The limits of an agent's calls since a time: exact, without reading the rows of that time for each new call.

For each agent, a window has the number and the bytes of the calls that were created after a time. When a limit may be
exceeded, the window moves up to the limit's time: only the calls between the two times are read. That happens in the
writer's thread, so the count is exact among the calls that are being added.
"""

from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import Any

from approvals.model import CallLimit, HeldCall
from approvals.store.sqlite import statements
from approvals.store.sqlite.writer import Writer
from approvals.summaries import size


@dataclass(slots=True)
class _AgentWindow:
    since: float
    calls: int
    bytes: int


class RecentCalls:
    """The recent calls of each agent, also those that have ended, and the calls that are being added."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._windows: dict[str, _AgentWindow] = {}
        self._new_calls: Counter[str] = Counter()
        self._new_bytes: Counter[str] = Counter()

    def reserve(self, call: HeldCall, calls: int = 1) -> None:
        """Take the room of a call that is being added; with -1, give it back."""
        agent = call.call.agent
        self._new_calls[agent] += calls
        self._new_bytes[agent] += calls * size(call)
        if not self._new_calls[agent]:
            del self._new_calls[agent], self._new_bytes[agent]

    def add(self, call: HeldCall) -> None:
        """Count a call that was added, in place of its reservation."""
        self.reserve(call, -1)
        window = self._windows.get(call.call.agent)
        if window is not None and call.created_at > window.since:
            window.calls += 1
            window.bytes += size(call)

    def exceeds(self, limit: CallLimit, bytes_: int) -> bool:
        """Return whether one more call of *bytes_* bytes would exceed a limit, as far as its window tells."""
        window, agent = self._windows[limit.agent], limit.agent
        if limit.in_bytes:
            return window.bytes + self._new_bytes[agent] + bytes_ > limit.most
        return window.calls + self._new_calls[agent] + 1 > limit.most

    def must_move(self, limit: CallLimit, bytes_: int) -> bool:
        """Return whether the window must be moved to the limit's time before the limit can be checked."""
        window = self._windows.get(limit.agent)
        if window is None or limit.since < window.since:
            return True
        return limit.since > window.since and self.exceeds(limit, bytes_)

    async def move(self, limit: CallLimit) -> None:
        """Move the window of the limit's agent to the limit's time, if nothing else has moved it meanwhile."""
        window = self._windows.get(limit.agent)
        known = window.since if window is not None and window.since <= limit.since else None
        start, end = (limit.since, inf) if known is None else (known, limit.since)
        found: list[Any] = []

        def follow_up() -> None:
            calls, bytes_ = found[-1]
            if known is None:
                self._windows[limit.agent] = _AgentWindow(limit.since, calls, bytes_)
            elif (window := self._windows[limit.agent]).since == known:
                self._windows[limit.agent] = _AgentWindow(
                    limit.since, window.calls - calls, window.bytes - bytes_
                )

        await self._writer.do(
            lambda db: found.append(db.execute(statements.RECENT, (limit.agent, start, end)).fetchone()),
            then=follow_up,
        )
