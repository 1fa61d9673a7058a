"""Prometheus metrics: tool calls by verdict, open calls by state, disk use. No tool names, no arguments."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client import Counter as Count
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from approvals.model import State


class Metrics:
    """The metrics of one gateway."""

    def __init__(self, disk_used: Callable[[], float] = lambda: 0.0) -> None:
        """*disk_used* returns the used share of the store's disk, from 0 to 1."""
        self._registry = CollectorRegistry()
        disk = Gauge(
            "okayed_store_disk_used_ratio", "Used share of the store's disk, from 0 to 1.", registry=self._registry,
        )  # fmt: skip
        disk.set_function(disk_used)
        self._tool_calls = Count(
            "okayed_tool_calls", "Tool calls by verdict.", ["server", "verdict"], registry=self._registry,
        )  # fmt: skip
        self._open = Gauge(
            "okayed_open_calls",
            "Held calls that wait, run or are in doubt.",
            ["state"],
            registry=self._registry,
        )

    def count_call(self, server: str, verdict: str) -> None:
        """Count one call: allowed, denied, limited or held."""
        self._tool_calls.labels(server, verdict).inc()

    def set_open_calls(self, counts: Mapping[State, int]) -> None:
        """Set the gauges to the number of calls in each state."""
        for state, count in counts.items():
            self._open.labels(state).set(count)

    def exposition(self) -> tuple[bytes, str]:
        """Return the exposition text and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
