"""A fixture with a gateway in front of a recording server."""

import pytest

from approvals.service import ApprovalService
from gateways import running
from hang import HANG

#: The gateway's timeouts.
TIMERS = (
    "gateway.app.gateway.GRACE",
    "gateway.hold.answer_timeout.LATE_SECONDS",
    "gateway.hold.answer_timeout.CHECK_SECONDS",
    "gateway.hold.session_probe.TIMEOUT",
    "gateway.tools.catalogue.LIST_TIMEOUT",
    "gateway.upstreams.oauth.TOKEN_TIMEOUT",
    "gateway.upstreams.sessions.QUIET",
    "gateway.upstreams.sse.CONNECT_TIMEOUT",
    "gateway.upstreams.stdio.PROBE_TIMEOUT",
)
#: Seconds. A test of the end of a wait makes the wait shorter than this.
SHORT = 2.0


@pytest.fixture(autouse=True)
def no_timer_helps(monkeypatch):
    """Make the timeouts longer than a test may take: the test gets the event that it waits for, or it hangs."""
    for timer in TIMERS:
        monkeypatch.setattr(timer, 2.0 * HANG)
    wait = ApprovalService.wait_for_change

    async def wait_for_change(self, call, seconds):
        """Wait for the change itself; only a wait that a test made short may time out."""
        return await wait(self, call, seconds if seconds < SHORT else 2.0 * HANG)

    monkeypatch.setattr(ApprovalService, "wait_for_change", wait_for_change)


@pytest.fixture
async def gateway():
    async with running() as ready:
        yield ready
