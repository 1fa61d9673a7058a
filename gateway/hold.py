"""How a held call is shown to the client that waits for it: the ladder, as a table and pure functions.

The first rung is an open stream with a sign of life every beat, for as long as this client can bear; the last is
the WAITING result, after which the same call asked again collects the decision.
"""

from dataclasses import dataclass
from enum import Enum

from approvals import lifecycle
from approvals.model import HeldCall, State
from gateway import frames, sse

#: Seconds between signs of life. The shortest byte-silence limit measured among clients is 300 s; proxies in
#: between often allow 60 s, some 30 s.
BEAT = 15.0
#: Seconds a connection is held open for a client whose patience is unknown: below the 60 s after which the most
#: common SDK gives a call up.
PATIENCE = 50.0


class Rung(Enum):
    """What to do next for a client that waits."""

    WAIT = "keep the stream open"
    RUN = "forward it, now"
    TELL = "give the final answer"
    LATER = "tell it to ask again"


@dataclass(frozen=True, slots=True)
class Step:
    """The next rung, and for WAIT how many seconds at most."""

    rung: Rung
    seconds: float = 0.0


def step(call: HeldCall, now: float, give_up_at: float) -> Step:
    """Return what to do for one waiting client, given the call as it is."""
    if call.state in lifecycle.SETTLED:
        return Step(Rung.TELL)
    if call.state is State.APPROVED:
        return Step(Rung.RUN)
    if now >= give_up_at:
        return Step(Rung.LATER)
    return Step(Rung.WAIT, min(BEAT, give_up_at - now))


def patience(hold_for: float | None) -> float:
    """Return for how many seconds a connection is held open; None is `auto`."""
    return PATIENCE if hold_for is None else hold_for


def sign_of_life(call: HeldCall, beats: int, token: frames.Id | None) -> bytes:
    """Return what is sent while nothing happens: a comment, and progress for a client that asked for it.

    Progress must increase (MCP, utilities/progress) and the server's own may follow, so ours grows by millionths.
    """
    if token is None:
        return sse.comment("waiting for approval")
    params = {"progressToken": token, "progress": beats * 1e-6, "message": f"Waiting for approval {call.id}"}
    return sse.event(frames.notification("notifications/progress", params))
