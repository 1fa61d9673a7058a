"""The hold ladder: how the client of a held call is answered, as tables and pure functions (PURE).

`answer_mode` chooses once: a task for a client that requests one, else a wait on the open connection with a sign of
life every beat. At the end of the wait, a client of 2026-07-28 gets a round: an `input_required` result with sealed
state, which its SDK answers without the model. Other clients, and that one after its last round, get the WAITING
result: repeating the call collects the answer.
"""

from dataclasses import dataclass
from enum import Enum

from approvals import lifecycle
from approvals.model import HeldCall, State
from gateway.call.hold_settings import TaskOffer
from gateway.wire import frames, protocol, sse

#: Seconds between signs of life. The shortest silence limit measured among clients is 300 s; proxies often allow
#: 60 s, some 30 s.
BEAT = 15.0
#: Seconds for which an answer may still be one JSON frame with its own HTTP status; then it becomes a stream.
#: A client with a progress token gets a stream at once.
QUIET = 10.0
#: The number of the last round; the common SDKs stop after ten.
LAST_ROUND = 9
#: Milliseconds after which a client whose stream broke reconnects (the `retry` field of its events).
RECONNECT_MS = 5000


class AnswerMode(Enum):
    """How a client is answered while its call is held."""

    WAIT = "on the open connection, and in rounds where the revision has them"
    TASK = "with a task of the extension of 2026-07-28"
    TASK_2025 = "with a task of the revision of 2025-11-25"


def answer_mode(call: frames.CallFrame, era: protocol.Era, tasks: TaskOffer) -> AnswerMode:
    """Return how the client of *call* is answered if the call is held."""
    if era is protocol.Era.MODERN:
        offered = tasks is not TaskOffer.OFF and protocol.declares_tasks(call.params)
        return AnswerMode.TASK if offered else AnswerMode.WAIT
    return AnswerMode.TASK_2025 if tasks is TaskOffer.ALL and "task" in call.params else AnswerMode.WAIT


class Rung(Enum):
    """The next step for a waiting client."""

    WAIT = "keep the connection open"
    RUN = "run the call now"
    ANSWER = "send the final answer"
    ROUND = "send sealed state for another round"
    LATER = "send WAITING: repeat the call later"


@dataclass(frozen=True, slots=True)
class Step:
    """The next rung, and the most seconds until the next one is chosen: for WAIT, and for RUN if it fails."""

    rung: Rung
    seconds: float = 0.0


def next_step(
    call: HeldCall,
    now: float,
    give_up_at: float,
    *,
    rounds_left: int = 0,
    cancelled: bool = False,
    claim_failed: bool = False,
) -> Step:
    """Return the next step for one waiting client. A cancelled request never starts the run.

    *claim_failed*: the last attempt to claim the call for this client failed. It is not retried after *give_up_at*.
    """
    if call.state in lifecycle.SETTLED:
        return Step(Rung.ANSWER)
    if cancelled:
        return Step(Rung.LATER)
    seconds = max(0.0, min(BEAT, give_up_at - now))
    if call.state is State.APPROVED and (seconds or not claim_failed):
        return Step(Rung.RUN, seconds)
    if not seconds:
        return Step(Rung.ROUND if rounds_left > 0 else Rung.LATER)
    return Step(Rung.WAIT, seconds)


def sign_of_life(call: HeldCall, beats: int, token: frames.Id | None) -> bytes:
    """Build the event that keeps a quiet stream alive: a progress notification for a *token*, else a comment.

    Progress must increase (MCP, utilities/progress). The server's own progress may follow, so ours grows by millionths.
    """
    if token is None:
        return sse.build_comment("waiting for approval")
    params = {"progressToken": token, "progress": beats * 1e-6, "message": f"Waiting for approval {call.id}"}
    return sse.build_event(frames.build_notification("notifications/progress", params))
