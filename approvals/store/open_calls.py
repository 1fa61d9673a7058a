"""The open calls of a store in memory, and how much of each limit they use.

A store puts a call here after its commit, so a read of an open call asks no thread and no file. The limits also count the
calls that are being added: a caller takes their room before the write, and gives it back if the write fails.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from approvals.lifecycle import OPEN, OPEN_OR_IN_DOUBT, TIMED
from approvals.model import CallId, CallLimit, HeldCall, State
from approvals.summaries import ROW_BYTES, size

#: The most bytes of a call that are kept in memory; those of a larger one are read from the file.
MAX_KEPT = 4096
#: Deadlines of calls that have changed since, beyond which the heap is built again.
MAX_OUTDATED = 1024


@dataclass(frozen=True, slots=True)
class OpenCall:
    """The facts of an open call that limits, counts and deadlines need; and the call, unless it is large."""

    id: CallId
    key: str
    version: int
    state: State
    agent: str
    size: int
    expires_at: float
    task: bool
    call: HeldCall | None


def open_call(held: HeldCall) -> OpenCall:
    """Return the entry of a held call."""
    bytes_ = size(held)
    small = bytes_ - ROW_BYTES + (len(held.outcome.body) if held.outcome else 0) <= MAX_KEPT
    return OpenCall(
        held.id, held.key, held.version, held.state, held.call.agent, bytes_, held.expires_at, held.task,
        held if small else None,
    )  # fmt: skip


class Usage:
    """The number of open calls and their bytes, of each agent and of all agents (""); those in doubt are not included."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def add(self, agent: str, bytes_: int, calls: int = 1) -> None:
        """Add calls of *agent* that take *bytes_* bytes; negative numbers take them away."""
        for name in (agent, ""):
            self.calls[name] += calls
            self.bytes[name] += bytes_
        if not self.calls[agent]:
            del self.calls[agent], self.bytes[agent]

    def exceeds(self, limit: CallLimit, bytes_: int) -> bool:
        """Return whether one more call of *bytes_* bytes would exceed a limit of open calls."""
        used = self.bytes[limit.agent] + bytes_ if limit.in_bytes else self.calls[limit.agent] + 1
        return used > limit.most


class OpenCalls:
    """The calls that are pending, approved, forwarding or in doubt, in order of arrival."""

    def __init__(self) -> None:
        self.by_id: dict[CallId, OpenCall] = {}
        self.by_key: dict[str, OpenCall] = {}
        self.usage = Usage()
        self._counts: Counter[State] = Counter()
        self._tasks: set[CallId] = set()
        #: The deadlines of pending and approved calls, and of some that have changed since.
        self._deadlines: list[tuple[float, CallId]] = []

    def load(self, calls: Iterable[OpenCall]) -> None:
        """Put the calls of a file that was just opened."""
        for one in calls:
            self._take_room(one, 1)
            self._put(one)

    # A new call.

    def reserve(self, held: HeldCall) -> None:
        """Take the room of a call that is being added."""
        if held.state in OPEN:
            self.usage.add(held.call.agent, size(held))

    def give_back(self, held: HeldCall) -> None:
        """Give the room back: the call was not added."""
        if held.state in OPEN:
            self.usage.add(held.call.agent, -size(held), -1)

    def add(self, held: HeldCall) -> None:
        """Put a call that was added; its room is taken already."""
        if held.state in OPEN_OR_IN_DOUBT:
            self._put(open_call(held))

    # A changed call.

    def replace(self, held: HeldCall) -> None:
        """Put the new value of a call; drop it when it is settled."""
        if (old := self.by_id.get(held.id)) is not None:
            self._take_room(old, -1)
            self._counts[old.state] -= 1
        if held.state in OPEN_OR_IN_DOUBT:
            self._take_room(new := open_call(held), 1)
            self._put(new)
        elif old is not None:
            self._drop(old)

    def _take_room(self, one: OpenCall, calls: int) -> None:
        if one.state in OPEN:
            self.usage.add(one.agent, calls * one.size, calls)

    def _put(self, one: OpenCall) -> None:
        self.by_id[one.id] = self.by_key[one.key] = one
        self._counts[one.state] += 1
        if one.task and one.state in OPEN:
            self._tasks.add(one.id)
        else:
            self._tasks.discard(one.id)
        if one.state in TIMED:
            heappush(self._deadlines, (one.expires_at, one.id))
            if len(self._deadlines) > 2 * len(self.by_id) + MAX_OUTDATED:
                self._deadlines = [
                    deadline for deadline in set(self._deadlines) if self._is_current(deadline)
                ]
                heapify(self._deadlines)

    def _drop(self, one: OpenCall) -> None:
        del self.by_id[one.id], self.by_key[one.key]
        self._tasks.discard(one.id)

    # Lists.

    def due(self, now: float) -> Sequence[CallId]:
        """Return the pending and approved calls whose deadline is at or before *now*, by deadline."""
        due: dict[tuple[float, CallId], None] = {}
        while self._deadlines and self._deadlines[0][0] <= now:
            if self._is_current(deadline := heappop(self._deadlines)):
                due[deadline] = None
        for deadline in due:  # until they change
            heappush(self._deadlines, deadline)
        return [call_id for _, call_id in due]

    def _is_current(self, deadline: tuple[float, CallId]) -> bool:
        at, call_id = deadline
        found = self.by_id.get(call_id)
        return found is not None and found.state in TIMED and found.expires_at == at

    def counts(self) -> Mapping[State, int]:
        """Return the number of calls in each open state, and in doubt."""
        return {state: self._counts[state] for state in OPEN_OR_IN_DOUBT}

    def tasks(self) -> Sequence[CallId]:
        """Return the open calls with a task handle, oldest first."""
        return [call_id for call_id in self.by_id if call_id in self._tasks] if self._tasks else []
