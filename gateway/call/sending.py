"""An allowed call that can be sent without waiting."""

from collections.abc import Callable
from typing import Protocol

from gateway.upstreams.reply import Reply


class Sending(Protocol):
    """An allowed call, judged and recorded, with a connection reserved for it."""

    def start(self, answer: Callable[[Reply], None]) -> None:
        """Send the call. *answer* is called once, in the event loop, maybe before this returns; errors become replies."""

    def abandon(self) -> None:
        """Cancel the call, since its client left; *answer* is not called any more."""
