"""Limits wrong tokens and codes per client address. The caller rejects requests from a blocked address."""

from collections import deque

#: An address with this many failures within this many seconds is blocked.
ATTEMPTS = 10
WINDOW = 300.0
#: The most addresses that are remembered. The one that failed longest ago is dropped first.
MAX_PEERS = 1024


class Throttle:
    """Recent failures by address; *most* of them within the window block the address."""

    def __init__(self, most: int = ATTEMPTS) -> None:
        self._most = most
        self._failed: dict[str, deque[float]] = {}

    def is_blocked(self, peer: str, now: float) -> bool:
        """Return whether *peer* is blocked."""
        return len([at for at in self._failed.get(peer, ()) if at > now - WINDOW]) >= self._most

    def record_failure(self, peer: str, now: float) -> None:
        """Record a failure of *peer*."""
        times = self._failed.pop(peer, deque(maxlen=self._most))
        times.append(now)
        self._failed[peer] = times
        if len(self._failed) > MAX_PEERS:
            del self._failed[next(iter(self._failed))]
