"""The objects that the answers to all held calls share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from approvals.model import HeldCall
from approvals.service import ApprovalService
from gateway.hold.cancellations import Cancellations, PendingWait
from gateway.hold.client_wait import ClientWait
from gateway.hold.event_buffer import EventBuffer
from gateway.hold.final_frames import FinalFrames
from gateway.hold.outbound import Outbound
from gateway.hold.timer_wheel import TimerWheel
from gateway.hold.version_checks import VersionChecks


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldContext:
    """The objects that all held answers share."""

    service: ApprovalService
    waits: Cancellations
    wheel: TimerWheel
    checks: VersionChecks
    final_frames: FinalFrames
    #: Starts the run of an approved call, unless the wait is over; its events are then in the wait.
    start_run: Callable[[HeldCall, Outbound, PendingWait], Awaitable[EventBuffer | None]]
    #: Called when the client left before its answer was written.
    on_left: Callable[[HeldCall], None]
    #: Called after the last byte was written.
    on_delivered: Callable[[ClientWait], Awaitable[None]]
