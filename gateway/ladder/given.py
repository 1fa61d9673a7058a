"""Which answers each session was given since its last request (PURE).

An answer may be written and still be lost, when a process on the way is killed. If the next request of the session is the same call,
the agent has most likely not seen the answer.
"""

from collections import OrderedDict
from typing import NamedTuple

from approvals.model import CallId

#: The most sessions that are remembered; the one that was heard of longest ago is forgotten first.
MAX_SESSIONS = 10_000


class Place(NamedTuple):
    """A session: whose it is, with which server, and its id, or the agent's name where the protocol has no sessions."""

    agent: str
    server: str
    session: str


class Given:
    """The calls whose answers were written to each session, with no other request of it since."""

    def __init__(self, most: int = MAX_SESSIONS) -> None:
        self._most = most
        self._given: OrderedDict[Place, frozenset[CallId]] = OrderedDict()

    def give(self, place: Place, call_id: CallId) -> None:
        """Note that the last byte of an answer was written."""
        self._keep(place, self._given.get(place, frozenset()) | {call_id})

    def asked(self, place: Place) -> None:
        """Note another request of the session."""
        self._keep(place, frozenset())

    def was_given(self, place: Place, call_id: CallId) -> bool:
        """Say whether the session was given this answer since its last request."""
        return call_id in self._given.get(place, ())

    def is_last(self, place: Place, call_id: CallId) -> bool:
        """Say whether the session has asked for nothing since it was given this answer.

        So it is with a session that nothing is known of: its process was started after the answer was given.
        """
        return place not in self._given or self.was_given(place, call_id)

    def _keep(self, place: Place, calls: frozenset[CallId]) -> None:
        self._given[place] = calls
        self._given.move_to_end(place)
        if len(self._given) > self._most:
            self._given.popitem(last=False)
