"""Exports the metrics in the text format of Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.call.metrics import Metrics


def generate(metrics: Metrics) -> tuple[bytes, str]:
    """Return the exposition text of *metrics* and its content type."""
    registry = CollectorRegistry()
    registry.register(_MetricsCollector(metrics))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _MetricsCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        yield GaugeMetricFamily(
            "okayed_store_disk_used_ratio",
            "Used share of the store's disk, from 0 to 1.",
            metrics.disk_used(),
        )
        calls = CounterMetricFamily(
            "okayed_tool_calls", "Tool calls by verdict.", labels=["server", "verdict"]
        )
        for labels, count in metrics.calls.items():
            calls.add_metric(labels, count, created=metrics.counted_since[labels])
        yield calls
        open_calls = GaugeMetricFamily(
            "okayed_open_calls", "Held calls that wait, run or are in doubt.", labels=["state"]
        )
        for state, count in metrics.open_calls.items():
            open_calls.add_metric([state], count)
        yield open_calls
