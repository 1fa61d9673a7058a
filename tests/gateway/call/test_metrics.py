"""The metrics that /metrics exposes."""

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
