"""The state of one client that waits for a held call."""

from dataclasses import dataclass

from approvals.model import HeldCall
from gateway.call.request import CallRequest
from gateway.hold import ladder
from gateway.hold.cancellations import PendingWait
from gateway.hold.ladder import Rung
from gateway.wire import protocol


@dataclass(slots=True, kw_only=True)
class ClientWait:
    """A waiting client. `held` is the newest version of the call that it has seen."""

    request: CallRequest
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
    #: The rung on which the wait ended.
    rung: Rung = Rung.LATER
    #: Whether the last attempt to claim the call failed.
    claim_failed: bool = False
    #: Whether the final frame was passed to the writer.
    answered: bool = False
    _beats: int = 0

    def next_step(self, now: float, *, closing: bool) -> ladder.Step:
        """Return the next step. While the gateway is *closing*, every client gets WAITING."""
        return ladder.next_step(
            self.held, now, self.give_up_at,
            rounds_left=self.rounds_left, cancelled=self.wait.is_over or closing, claim_failed=self.claim_failed,
        )  # fmt: skip

    def beat(self, seconds: float) -> tuple[bytes | None, float]:
        """Return the next sign of life (None during the silence) and the seconds to wait after it."""
        if self.silence:
            seconds, self.silence = min(self.silence, seconds), 0.0
            return None, seconds
        self._beats += 1
        return ladder.sign_of_life(self.held, self._beats - 1, self.request.frame.progress_token), seconds


def rounds_left(request: CallRequest) -> int:
    """Return how many input_required rounds this request may still have; 0 before 2026-07-28."""
    return ladder.LAST_ROUND - request.round if request.era is protocol.Era.MODERN else 0


def quiet_time(request: CallRequest) -> float:
    """Return the seconds before the first sign of life: 0 for a client with a progress token."""
    return ladder.QUIET if request.frame.progress_token is None else 0.0
