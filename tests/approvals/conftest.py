import pytest

from hang import HANG


@pytest.fixture(autouse=True)
def no_timer_helps(monkeypatch):
    """Stretch the pause after which a channel is written to in any case: a test passes by what it waits for, or it hangs."""
    monkeypatch.setattr("approvals.notices.ROUND", 2.0 * HANG)
