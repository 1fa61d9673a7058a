"""Which request of which client waits for which held call, so that a client that cancels the request stops waiting.

SDK clients cancel when their own timer ends, and most of them keep the connection. Were such a wait not over, an approval would
run the call for a client that no longer listens, and its answer would be lost.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from approvals.model import CallId
from gateway import frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A request as its client names it: ids are the client's own, counted anew in each session."""

    agent: str
    server: str
    session: str
    id: frames.Id


@dataclass(slots=True, eq=False)
class Wait:
    """One client that waits for a held call, until it cancels."""

    call_id: CallId
    cancelled: bool = False


class Waits:
    """Every wait there is now."""

    def __init__(self) -> None:
        self._waits: defaultdict[Named, list[Wait]] = defaultdict(list)
        #: Whether nobody waits any more, because the gateway stops.
        self.over = False

    @contextmanager
    def waiting(self, named: Named, call_id: CallId) -> Iterator[Wait]:
        """Note a wait for as long as the context is open."""
        wait = Wait(call_id)
        self._waits[named].append(wait)
        try:
            yield wait
        finally:
            self._waits[named].remove(wait)
            if not self._waits[named]:
                del self._waits[named]

    def cancel(self, named: Named) -> tuple[CallId, ...]:
        """End the waits for a request; returns the calls that were waited for.

        Without sessions two clients of one agent may use one id: then both stop waiting, and the other one asks again.
        """
        ended = tuple(self._waits.get(named, ()))
        for wait in ended:
            wait.cancelled = True
        return tuple(wait.call_id for wait in ended)
