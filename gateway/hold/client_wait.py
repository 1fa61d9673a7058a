"""The state of one client that waits for a held call."""

from dataclasses import dataclass
from math import inf

from approvals.model import HeldCall
from gateway.call.request import CallRequest
from gateway.hold import ladder
from gateway.hold.cancellations import PendingWait
from gateway.hold.ladder import Rung
from gateway.hold.waiting_request import WaitingRequest
from gateway.wire import protocol


@dataclass(slots=True, kw_only=True)
class ClientWait:
    """A waiting client. `held` is the newest version of the call that it has seen."""

    request: WaitingRequest
    held: HeldCall
    wait: PendingWait
    #: Whether the client resumes its stream when the stream breaks.
    resumes: bool
    #: When the wait ends, on the monotonic clock.
    give_up_at: float
    #: Seconds left without a sign of life.
    silence: float
    #: How many more input_required rounds the client may get.
    rounds_left: int
    #: When the next sign of life, or the next attempt to claim the call, is due.
    due: float = -inf
    #: The rung on which the wait ended.
    rung: Rung = Rung.LATER
    #: Whether the last attempt to claim the call failed. The next one follows at the next beat, or at the next change.
    claim_failed: bool = False
    #: Whether it was sent a link to the inbox.
    link_shown: bool = False
    #: Whether the final frame was built, and whether it was passed to the writer.
    answer_ready: bool = False
    answered: bool = False
    _beats: int = 0

    def next_step(self, now: float, *, closing: bool) -> ladder.Step:
        """Return the next step. While the gateway is *closing*, every client gets WAITING."""
        return ladder.next_step(
            self.held, now, self.give_up_at,
            rounds_left=self.rounds_left, cancelled=self.wait.is_over or closing, claim_failed=self.claim_failed,
        )  # fmt: skip

    def is_idle(self, now: float, *, closing: bool) -> bool:
        """Return whether nothing is due before `due`."""
        rung = self.next_step(now, closing=closing).rung
        return now < self.due and (rung is Rung.WAIT or (rung is Rung.RUN and self.claim_failed))

    def beat(self, now: float, seconds: float) -> bytes | None:
        """Return the next sign of life (None during the silence); the next one is due *seconds* later at most."""
        if self.silence:
            self.due, self.silence = now + min(self.silence, seconds), 0.0
            return None
        self.due = now + seconds
        self._beats += 1
        return ladder.sign_of_life(self.held, self._beats - 1, self.request.progress_token)


def rounds_left(request: CallRequest) -> int:
    """Return how many input_required rounds this request may still have; 0 before 2026-07-28."""
    return ladder.LAST_ROUND - request.round if request.era is protocol.Era.MODERN else 0


def quiet_time(request: CallRequest) -> float:
    """Return the seconds before the first sign of life: 0 for a client with a progress token."""
    return ladder.QUIET if request.frame.progress_token is None else 0.0
