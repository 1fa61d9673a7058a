"""Counts wrong tokens and codes by client address; the caller tells an address with too many to wait."""

from collections import deque

#: An address with this many failed attempts within this many seconds has to wait.
ATTEMPTS = 10
WINDOW = 300.0
#: So many addresses are remembered; the one that failed longest ago is forgotten first.
MAX_PEERS = 1024


class Throttle:
    """Failed attempts of the last minutes; *most* of one address are too many."""

    def __init__(self, most: int = ATTEMPTS) -> None:
        self._most = most
        self._failed: dict[str, deque[float]] = {}

    def too_many(self, peer: str, now: float) -> bool:
        """Say whether this address has failed too often of late."""
        return len([at for at in self._failed.get(peer, ()) if at > now - WINDOW]) >= self._most

    def failed(self, peer: str, now: float) -> None:
        """Remember a failed attempt."""
        times = self._failed.pop(peer, deque(maxlen=self._most))
        times.append(now)
        self._failed[peer] = times
        if len(self._failed) > MAX_PEERS:
            del self._failed[next(iter(self._failed))]
