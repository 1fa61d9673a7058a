"""Which answers each session was given since its last request (PURE).

An answer may be written and still be lost, when a process on the way is killed. If the next request of the session is the same call,
the agent has most likely not seen the answer.
"""

from collections import OrderedDict
from typing import NamedTuple

from approvals.model import CallId

#: The most sessions that are remembered; the one that was heard of longest ago is forgotten first.
MAX_SESSIONS = 10_000


class SessionKey(NamedTuple):
    """A session: whose it is, with which server, and its id, or the agent's name where the protocol has no sessions."""

    agent: str
    server: str
    session: str


class DeliveredAnswers:
    """The calls whose answers were written to each session, with no other request of it since."""

    def __init__(self, most: int = MAX_SESSIONS) -> None:
        self._most = most
        self._given: OrderedDict[SessionKey, frozenset[CallId]] = OrderedDict()
        #: Whether sessions were forgotten. Then nothing can be said of one that is not known.
        self._forgot = False

    def give(self, place: SessionKey, call_id: CallId) -> None:
        """Note that the last byte of an answer was written."""
        self._keep(place, self._given.get(place, frozenset()) | {call_id})

    def asked(self, place: SessionKey) -> None:
        """Note another request of the session."""
        self._keep(place, frozenset())

    def was_given(self, place: SessionKey, call_id: CallId) -> bool:
        """Say whether the session was given this answer since its last request."""
        return call_id in self._given.get(place, ())

    def is_last(self, place: SessionKey, call_id: CallId) -> bool:
        """Say whether the session has asked for nothing since it was given this answer.

        A session that is not known has asked for nothing since this process was started, unless sessions were forgotten.
        """
        known = place in self._given
        return self.was_given(place, call_id) if known else not self._forgot

    def _keep(self, place: SessionKey, calls: frozenset[CallId]) -> None:
        self._given[place] = calls
        self._given.move_to_end(place)
        if len(self._given) > self._most:
            self._given.popitem(last=False)
            self._forgot = True
