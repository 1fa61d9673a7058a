"""The answers that each session was sent since its last request (PURE).

An answer that was written may still be lost, when a process on the way is killed. If the next request of the session
is the same call, the agent has most likely not seen the answer.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from approvals.model import CallId

#: The most sessions that are remembered; the least recently used is forgotten first.
MAX_SESSIONS = 10_000


class SessionKey(NamedTuple):
    """The agent, the server, and the session id; the agent's name if the protocol has no sessions."""

    agent: str
    server: str
    session: str


class DeliveredAnswers:
    """The calls whose answers were written to each session since its last request."""

    def __init__(self, most: int = MAX_SESSIONS) -> None:
        self._most = most
        self._delivered: OrderedDict[SessionKey, frozenset[CallId]] = OrderedDict()
        #: Whether a session was forgotten: an unknown session may then be one of those.
        self._forgot = False
        #: The sessions that were sent an answer which the store does not have as collected yet.
        self._being_stored: dict[CallId, SessionKey] = {}

    @contextmanager
    def storing(self, key: SessionKey, call_id: CallId) -> Iterator[None]:
        """Remember who was sent an answer while the store records that."""
        self._being_stored[call_id] = key
        try:
            yield
        finally:
            self._being_stored.pop(call_id, None)

    def find_receiver(self, key: SessionKey, call_id: CallId) -> SessionKey | None:
        """Return the session that was just sent this answer: *key*, or another one; None if neither was."""
        return key if self.has(key, call_id) else self._being_stored.get(call_id)

    def record(self, key: SessionKey, call_id: CallId) -> None:
        """Record that the last byte of an answer was written."""
        self._keep(key, self._delivered.get(key, frozenset()) | {call_id})

    def record_request(self, key: SessionKey) -> None:
        """Record another request of the session."""
        self._keep(key, frozenset())

    def has(self, key: SessionKey, call_id: CallId) -> bool:
        """Return whether the session was sent this answer since its last request."""
        return call_id in self._delivered.get(key, ())

    def is_last(self, key: SessionKey, call_id: CallId) -> bool:
        """Return whether the session sent no request since this answer.

        An unknown session has sent none since this process started, unless sessions were forgotten.
        """
        return self.has(key, call_id) if key in self._delivered else not self._forgot

    def _keep(self, key: SessionKey, calls: frozenset[CallId]) -> None:
        self._delivered[key] = calls
        self._delivered.move_to_end(key)
        if len(self._delivered) > self._most:
            self._delivered.popitem(last=False)
            self._forgot = True
