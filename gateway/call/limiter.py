"""Counts calls against the limits of the policy."""

from collections.abc import Sequence
from typing import Protocol

from approvals.store import StateStore
from gateway.policy.limits import ExceededLimit, Limit, LimitUser, Windows, window_key


class Limiter(Protocol):
    """Counts the uses of limits; gateways that share a limiter share its counts."""

    async def take(self, limits: Sequence[Limit], user: LimitUser, now: float) -> ExceededLimit | None:
        """Count one use of all *limits* at *now*, in seconds; if any is exceeded, count none and return it.

        Raises `StoreError` when the uses cannot be stored.
        """


class WindowLimiter:
    """Sliding windows in memory. The store keeps each use, so that the windows survive a restart."""

    def __init__(self, store: StateStore, windows: Windows) -> None:
        self._store = store
        self._windows = windows

    @classmethod
    async def load(cls, store: StateStore, now: float) -> "WindowLimiter":
        """Return a limiter with the stored uses that are still in their windows at *now*."""
        return cls(store, Windows(await store.hits(now)))

    async def take(self, limits: Sequence[Limit], user: LimitUser, now: float) -> ExceededLimit | None:
        """See `Limiter.take`. Uses are stored without waiting."""
        if (exceeded := self._windows.take(limits, user, now)) is not None:
            return exceeded
        for limit in limits:
            if limit.amount:
                self._store.add_hit(window_key(limit, user), now, now + limit.window, float(limit.amount))
        return None
