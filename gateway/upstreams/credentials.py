"""The seam for the gateway's own credentials: headers that are read before each request to a server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Credentials(Protocol):
    """The gateway's own credentials for one server. An agent's credentials are never sent to a server."""

    async def headers(self) -> Mapping[str, str]:
        """Return the headers for a request; raises `NotSentError` if no token can be fetched."""

    def current(self) -> Mapping[str, str] | None:
        """Return the headers without waiting; None if a token has to be fetched first.

        The same object is returned until the headers change.
        """

    def mark_refused(self, headers: Mapping[str, str]) -> None:
        """Record that the server answered 401 to these headers."""


@dataclass(frozen=True, slots=True)
class FixedCredentials:
    """Fixed headers from the config."""

    fixed: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def headers(self) -> Mapping[str, str]:
        """Return the headers."""
        return self.fixed

    def current(self) -> Mapping[str, str]:
        """Return the headers."""
        return self.fixed

    def mark_refused(self, headers: Mapping[str, str]) -> None:
        """Do nothing: only the operator can correct them."""
