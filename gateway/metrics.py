"""What Prometheus may know: how calls were judged, and how many wait in which state. Never names or arguments."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client import Counter as Count
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from approvals.model import HeldCall
from approvals.service import OPEN


class Metrics:
    """The numbers of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._judged = Count(
            "holdpoint_tool_calls", "Tool calls by what became of them at once.", ["server", "verdict"], registry=self._registry,
        )  # fmt: skip
        self._open = Gauge(
            "holdpoint_open_calls",
            "Held calls that are not at their end.",
            ["state"],
            registry=self._registry,
        )

    def judged(self, server: str, verdict: str) -> None:
        """Count one call: allowed, denied, limited or held."""
        self._judged.labels(server, verdict).inc()

    def opened(self, calls: Iterable[HeldCall]) -> None:
        """Say which calls are open now."""
        found = Counter(call.state for call in calls)
        for state in OPEN:
            self._open.labels(state).set(found[state])

    def exposition(self) -> tuple[bytes, str]:
        """Return the text that Prometheus reads, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
