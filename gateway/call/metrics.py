"""Counts what /metrics shows: tool calls by verdict, open calls by state, disk use. No tool names, no arguments."""

import time
from collections.abc import Callable, Mapping

from approvals.model import State


class Metrics:
    """The metrics of one gateway, as plain numbers: the exporter reads them only when /metrics is requested."""

    def __init__(self, disk_used: Callable[[], float] = lambda: 0.0) -> None:
        """*disk_used* returns the used share of the store's disk, from 0 to 1."""
        self.disk_used = disk_used
        #: The number of calls by server and verdict, and the Unix time of the first one.
        self.calls: dict[tuple[str, str], int] = {}
        self.counted_since: dict[tuple[str, str], float] = {}
        self.open_calls: dict[State, int] = {}

    def count_call(self, server: str, verdict: str) -> None:
        """Count one call: allowed, denied, limited or held."""
        labels = (server, verdict)
        if labels not in self.calls:
            self.calls[labels] = 0
            self.counted_since[labels] = time.time()
        self.calls[labels] += 1

    def set_open_calls(self, counts: Mapping[State, int]) -> None:
        """Set the number of calls in each state."""
        self.open_calls.update(counts)

    def exposition(self) -> tuple[bytes, str]:
        """Return the exposition text and its content type."""
        from gateway.call import exposition  # imported late: the call path only counts

        return exposition.generate(self)
