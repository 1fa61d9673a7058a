"""How many held calls one agent and all agents together may have, and how large they may be (PURE)."""

from collections.abc import Sequence
from dataclasses import dataclass

from approvals.errors import TooMuchInAnHour, TooMuchOfAll, TooMuchOfOne
from approvals.lifecycle import OPEN
from approvals.model import CallLimit

HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The most held calls, and bytes of them, that one agent and all agents together may have."""

    open: int = 10_000
    open_per_agent: int = 100
    bytes: int = 256 << 20
    bytes_per_agent: int = 16 << 20
    #: Of the calls that were held within an hour, whatever became of them.
    bytes_per_agent_hour: int = 256 << 20

    def limits(self, agent: str, now: float) -> Sequence[CallLimit]:
        """Return what one more call of this agent must not exceed."""
        return (
            CallLimit(states=OPEN, most=self.open_per_agent, agent=agent),
            CallLimit(states=OPEN, most=self.open),
            CallLimit(states=OPEN, most=self.bytes_per_agent, agent=agent, in_bytes=True, error=TooMuchOfOne),
            CallLimit(states=OPEN, most=self.bytes, in_bytes=True, error=TooMuchOfAll),
            CallLimit(
                states=(), most=self.bytes_per_agent_hour, agent=agent, in_bytes=True, since=now - HOUR,
                error=TooMuchInAnHour,
            ),
        )  # fmt: skip
