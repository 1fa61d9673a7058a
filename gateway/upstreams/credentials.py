"""The seam to what a server wants to see from the gateway: headers, asked for each time something is sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Credentials(Protocol):
    """The gateway's own credentials for one server. An agent's never go there."""

    async def headers(self) -> Mapping[str, str]:
        """Return the headers to send now; raises `NotSentError` when there are none to be had."""

    def mark_refused(self, headers: Mapping[str, str]) -> None:
        """Take note that the server answered 401 to these headers."""


@dataclass(frozen=True, slots=True)
class FixedCredentials:
    """Headers that stay as the config has them."""

    given: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def headers(self) -> Mapping[str, str]:
        """Return them."""
        return self.given

    def mark_refused(self, headers: Mapping[str, str]) -> None:
        """Change nothing: only the operator can mend them."""
