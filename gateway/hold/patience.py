"""Learns how long each client keeps a request open, from the time after which it repeats a call (PURE).

Some clients time out without a cancellation: they repeat the call while the first request is still open. The learned
wait decides only how long the next request is kept open, never whether a call runs. It is kept in memory for a day.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

#: Seconds from the last abandoned request until a learned wait is forgotten. A completed wait does not extend them: it
#: proves no timeout.
KEPT_SECONDS = 86_400.0
#: The fewest seconds that a request is kept open. A repeat within this time is assumed to be another program's.
MIN_WAIT = 2.0
#: The most clients with a learned wait; the least recently updated is forgotten first.
MAX_CLIENTS = 10_000


class ClientKey(NamedTuple):
    """A client: its agent, and its own `clientInfo` name."""

    agent: str
    client: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedWait:
    """The learned wait of one client."""

    #: Seconds for which its next request is kept open.
    wait: float
    #: When it last abandoned a request, in seconds of the caller's clock.
    abandoned_at: float
    #: How many requests it has abandoned, and how many waits it has completed since the last change of `wait`.
    times_abandoned: int = 1
    times_waited: int = 0
    #: The call that its last WAITING result asked it to repeat.
    retry_call: str = ""


def shorten_wait(previous: LearnedWait | None, gap: float, now: float) -> LearnedWait:
    """Return the wait of a client that repeated a call *gap* seconds after a request that is still open.

    The gap is the client's timeout plus its model's thinking time; the previous wait was longer than the timeout too.
    Halving the shorter of the two gets below the timeout in a few steps, however long the model thinks.
    """
    if previous is None:
        return LearnedWait(wait=max(MIN_WAIT, gap / 2), abandoned_at=now)
    return LearnedWait(
        wait=max(MIN_WAIT, min(gap, previous.wait) / 2),
        abandoned_at=now,
        times_abandoned=previous.times_abandoned + 1,
    )


def lengthen_wait(previous: LearnedWait, most: float) -> LearnedWait | None:
    """Return the wait of a client that repeated a call after a WAITING result; None once it reaches *most*.

    The client completed the wait, so the next one is twice as long. After more than one abandoned request it must
    complete 2, 4, 8 waits before a longer one is tried. So it seldom reaches its timeout again.
    """
    waited = previous.times_waited + 1
    if waited < 2 ** (previous.times_abandoned - 1):
        return replace(previous, times_waited=waited, retry_call="")
    wait = previous.wait * 2
    return None if wait >= most else replace(previous, wait=wait, times_waited=0, retry_call="")


class LearnedWaits:
    """The learned waits of all clients."""

    def __init__(self, most: int = MAX_CLIENTS) -> None:
        self._most = most
        self._learned: OrderedDict[ClientKey, LearnedWait] = OrderedDict()

    def get(self, client: ClientKey, most: float, now: float) -> float:
        """Return how many seconds to keep the client's request open; *most* without a learned wait."""
        learned = self._known(client, now)
        return most if learned is None else min(most, learned.wait)

    def record_abandoned(self, client: ClientKey, gap: float, now: float) -> None:
        """Record that a client repeated a call whose request had been open for *gap* seconds."""
        self._keep(client, shorten_wait(self._known(client, now), gap, now))

    def record_waiting(self, client: ClientKey, call: str, now: float) -> None:
        """Record that a client got WAITING for a call at the end of its wait."""
        if (learned := self._known(client, now)) is not None:
            self._keep(client, replace(learned, retry_call=call))

    def record_repeat(self, client: ClientKey, call: str, most: float, now: float) -> None:
        """Record that a client repeated a call without an open request for it."""
        learned = self._known(client, now)
        if learned is not None and learned.retry_call == call:
            self._keep(client, lengthen_wait(learned, most))

    def _known(self, client: ClientKey, now: float) -> LearnedWait | None:
        learned = self._learned.get(client)
        return learned if learned is not None and now < learned.abandoned_at + KEPT_SECONDS else None

    def _keep(self, client: ClientKey, learned: LearnedWait | None) -> None:
        self._learned.pop(client, None)
        if learned is not None:
            self._learned[client] = learned
        if len(self._learned) > self._most:
            self._learned.popitem(last=False)
