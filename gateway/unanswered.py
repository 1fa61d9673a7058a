"""Notices when a call that was sent need not be waited for any longer.

A person gives a running call up, or its server exceeds `answer_within`. The call is then in doubt. Its server is told,
and may still answer for a while (MCP 2025-11-25, utilities/cancellation).
"""

from math import inf

from approvals.model import HeldCall, State
from approvals.service import ApprovalService
from gateway import replies

#: Seconds between looks at a running call, should the signal of a change be lost.
LOOK = 15.0
#: Seconds for which a server that was told may still answer.
LATE = 30.0


async def given_up(service: ApprovalService, held: HeldCall, within: float | None) -> None:
    """Return when the call does not run any more, or has been in doubt since *within* seconds were over."""
    until = service.clock() + (within or inf)
    while held.state is State.FORWARDING:
        left = until - service.clock()
        if left > 0:
            held = await service.changed(held, min(left, LOOK))
        else:
            why = f"The server did not answer within {replies.span(within or 0)}."
            held = await service.unanswered(held.id, why)
