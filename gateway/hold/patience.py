"""For how long a client was seen to bear an open call, learned from when it asks for the same call again (PURE).

Some clients tell nobody when their own timer ends: they ask again while the first request is still open. What is learned
decides only how long the next request is kept open, never what runs. It is kept in memory, for a day.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

#: Seconds for which what was learned counts, from when the client last gave up. To bear a short wait shows no timer.
KEPT_SECONDS = 86_400.0
#: Seconds that a request is kept open at least. One that is younger was not given up: two programs ask for the same.
MIN_WAIT = 2.0
#: The most clients that something is remembered of; the one that was heard of longest ago is forgotten first.
MAX_CLIENTS = 10_000


class ClientKey(NamedTuple):
    """A client: the agent that it speaks for, and its name for itself."""

    agent: str
    client: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedWait:
    """What was seen of one client."""

    #: Seconds for which its next request is kept open.
    wait: float
    #: When it last gave up, in seconds of the caller's clock.
    abandoned_at: float
    #: How often it gave up on an open request, and how often in a row since then it bore the wait.
    times_abandoned: int = 1
    times_waited: int = 0
    #: The call that it was told to ask for again, when it last bore the wait.
    retry_call: str = ""


def shorten_wait(was: LearnedWait | None, gap: float, now: float) -> LearnedWait:
    """Return what is known of a client that asked again *gap* seconds after a request that is still open.

    The gap is its timer and the time that its model thought. The wait that it did not bear is longer than the timer,
    so half of the shorter one comes below the timer in a few steps, however long the model thinks.
    """
    if was is None:
        return LearnedWait(wait=max(MIN_WAIT, gap / 2), abandoned_at=now)
    return LearnedWait(
        wait=max(MIN_WAIT, min(gap, was.wait) / 2), abandoned_at=now, times_abandoned=was.times_abandoned + 1
    )


def lengthen_wait(was: LearnedWait, most: float) -> LearnedWait | None:
    """Return what is known of a client that came again after it was told to; None when it bears *most* as far as is known.

    It bore the wait, so the next one is twice as long. A client that gave up more than once has to bear its wait
    more often before a longer one is tried: 1, 2, 4, 8 times. So it seldom meets its own timer again.
    """
    waited = was.times_waited + 1
    if waited < 2 ** (was.times_abandoned - 1):
        return replace(was, times_waited=waited, retry_call="")
    wait = was.wait * 2
    return None if wait >= most else replace(was, wait=wait, times_waited=0, retry_call="")


class LearnedWaits:
    """What was learned of every client."""

    def __init__(self, most: int = MAX_CLIENTS) -> None:
        self._most = most
        self._learned: OrderedDict[ClientKey, LearnedWait] = OrderedDict()

    def get(self, client: ClientKey, most: float, now: float) -> float:
        """Return for how many seconds the client's request is kept open; *most* where nothing was learned."""
        learned = self._known(client, now)
        return most if learned is None else min(most, learned.wait)

    def record_abandoned(self, client: ClientKey, gap: float, now: float) -> None:
        """Note that a client asked again while its request had been open for *gap* seconds."""
        self._keep(client, shorten_wait(self._known(client, now), gap, now))

    def record_waiting(self, client: ClientKey, call: str, now: float) -> None:
        """Note that a client was told to ask for a call again, when its wait was over."""
        if (learned := self._known(client, now)) is not None:
            self._keep(client, replace(learned, retry_call=call))

    def record_repeat(self, client: ClientKey, call: str, most: float, now: float) -> None:
        """Note that a client asks for a call, with no request for it open."""
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
