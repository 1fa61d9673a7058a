"""Quotas for held calls: how many one agent and all agents may have, and how large they may be (PURE)."""

from collections.abc import Sequence
from dataclasses import dataclass

from approvals.errors import AgentBytesExceeded, HourlyBytesExceeded, TotalBytesExceeded
from approvals.model import CallLimit

HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The most held calls, and the most bytes of them, for one agent and for all agents."""

    open: int = 10_000
    open_per_agent: int = 100
    bytes: int = 256 << 20
    bytes_per_agent: int = 16 << 20
    #: Includes the calls of the last hour that have ended.
    bytes_per_agent_hour: int = 256 << 20

    def limits(self, agent: str, now: float) -> Sequence[CallLimit]:
        """Return the limits that apply to one more call of this agent."""
        return (
            CallLimit(most=self.open_per_agent, agent=agent),
            CallLimit(most=self.open),
            CallLimit(most=self.bytes_per_agent, agent=agent, in_bytes=True, error=AgentBytesExceeded),
            CallLimit(most=self.bytes, in_bytes=True, error=TotalBytesExceeded),
            CallLimit(
                most=self.bytes_per_agent_hour, agent=agent, in_bytes=True, since=now - HOUR,
                error=HourlyBytesExceeded,
            ),
        )  # fmt: skip
