"""For how long a client was seen to bear an open call, learned from when it asks for the same call again (PURE).

Some clients tell nobody when their own timer ends: they ask again while the first request is still open. What is learned
decides only how long the next request is kept open, never what runs. It is kept in memory, for a day.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

#: Seconds for which what was learned counts, from when the client last gave up. To bear a short wait shows no timer.
KEPT = 86_400.0
#: Seconds that a request is kept open at least. One that is younger was not given up: two programs ask for the same.
LEAST = 2.0
#: The most clients that something is remembered of; the one that was heard of longest ago is forgotten first.
MAX_CLIENTS = 10_000


class Who(NamedTuple):
    """A client: the agent that it speaks for, and its name for itself."""

    agent: str
    client: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What was seen of one client."""

    #: Seconds for which its next request is kept open.
    wait: float
    #: When it last gave up, in seconds of the caller's clock.
    at: float
    #: How often it gave up on an open request, and how often in a row since then it bore the wait.
    gave_up: int = 1
    bore: int = 0
    #: The call that it was told to ask for again, when it last bore the wait.
    told: str = ""


def after_giving_up(was: Learned | None, gap: float, now: float) -> Learned:
    """Return what is known of a client that asked again *gap* seconds after a request that is still open.

    The gap is its timer and the time that its model thought. The wait that it did not bear is longer than the timer,
    so half of the shorter one comes below the timer in a few steps, however long the model thinks.
    """
    if was is None:
        return Learned(wait=max(LEAST, gap / 2), at=now)
    return Learned(wait=max(LEAST, min(gap, was.wait) / 2), at=now, gave_up=was.gave_up + 1)


def after_coming_again(was: Learned, most: float) -> Learned | None:
    """Return what is known of a client that came again after it was told to; None when it bears *most* as far as is known.

    It bore the wait, so the next one is twice as long. A client that gave up more than once has to bear its wait
    more often before a longer one is tried: 1, 2, 4, 8 times. So it seldom meets its own timer again.
    """
    bore = was.bore + 1
    if bore < 2 ** (was.gave_up - 1):
        return replace(was, bore=bore, told="")
    wait = was.wait * 2
    return None if wait >= most else replace(was, wait=wait, bore=0, told="")


class Patience:
    """What was learned of every client."""

    def __init__(self, most: int = MAX_CLIENTS) -> None:
        self._most = most
        self._learned: OrderedDict[Who, Learned] = OrderedDict()

    def wait(self, who: Who, most: float, now: float) -> float:
        """Return for how many seconds the client's request is kept open; *most* where nothing was learned."""
        learned = self._known(who, now)
        return most if learned is None else min(most, learned.wait)

    def gave_up(self, who: Who, gap: float, now: float) -> None:
        """Note that a client asked again while its request had been open for *gap* seconds."""
        self._keep(who, after_giving_up(self._known(who, now), gap, now))

    def told(self, who: Who, call: str, now: float) -> None:
        """Note that a client was told to ask for a call again, when its wait was over."""
        if (learned := self._known(who, now)) is not None:
            self._keep(who, replace(learned, told=call))

    def came_again(self, who: Who, call: str, most: float, now: float) -> None:
        """Note that a client asks for a call, with no request for it open."""
        learned = self._known(who, now)
        if learned is not None and learned.told == call:
            self._keep(who, after_coming_again(learned, most))

    def _known(self, who: Who, now: float) -> Learned | None:
        learned = self._learned.get(who)
        return learned if learned is not None and now < learned.at + KEPT else None

    def _keep(self, who: Who, learned: Learned | None) -> None:
        self._learned.pop(who, None)
        if learned is not None:
            self._learned[who] = learned
        if len(self._learned) > self._most:
            self._learned.popitem(last=False)
