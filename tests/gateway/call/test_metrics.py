"""The metrics that /metrics exposes."""

import subprocess
import sys

from approvals.model import State
from gateway.call.metrics import Metrics


def test_the_gauges_of_open_calls_follow_the_store():
    metrics = Metrics()
    metrics.set_open_calls({State.PENDING: 3, State.FORWARDING: 1, State.IN_DOUBT: 2})
    metrics.set_open_calls({State.PENDING: 0, State.FORWARDING: 1, State.IN_DOUBT: 2})
    exposed = metrics.exposition()[0].decode().splitlines()
    assert {line for line in exposed if line.startswith("okayed_open_calls{")} == {
        'okayed_open_calls{state="pending"} 0.0',
        'okayed_open_calls{state="forwarding"} 1.0',
        'okayed_open_calls{state="in_doubt"} 2.0',
    }


def test_the_exposition_has_every_metric_with_its_labels():
    metrics = Metrics(lambda: 0.25)
    for server, verdict in [("notes", "allowed"), ('a"\n', "held"), ("notes", "allowed")]:
        metrics.count_call(server, verdict)
    metrics.set_open_calls({State.PENDING: 3})
    text, kind = metrics.exposition()
    lines = [line.rpartition(" ")[0] if "_created{" in line else line for line in text.decode().splitlines()]
    assert kind.startswith("text/plain")
    assert lines == [
        "# HELP okayed_store_disk_used_ratio Used share of the store's disk, from 0 to 1.",
        "# TYPE okayed_store_disk_used_ratio gauge",
        "okayed_store_disk_used_ratio 0.25",
        "# HELP okayed_tool_calls_total Tool calls by verdict.",
        "# TYPE okayed_tool_calls_total counter",
        'okayed_tool_calls_total{server="notes",verdict="allowed"} 2.0',
        'okayed_tool_calls_total{server="a\\"\\n",verdict="held"} 1.0',
        "# HELP okayed_tool_calls_created Tool calls by verdict.",
        "# TYPE okayed_tool_calls_created gauge",
        'okayed_tool_calls_created{server="notes",verdict="allowed"}',
        'okayed_tool_calls_created{server="a\\"\\n",verdict="held"}',
        "# HELP okayed_open_calls Held calls that wait, run or are in doubt.",
        "# TYPE okayed_open_calls gauge",
        'okayed_open_calls{state="pending"} 3.0',
    ]


def test_the_exporter_is_imported_only_for_an_exposition():
    code = "import sys; from gateway.call.metrics import Metrics; Metrics().count_call('a', 'held'); print('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"False\n"
