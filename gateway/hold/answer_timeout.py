"""Notices when a call that was sent need not be waited for any longer.

A person gives a running call up, or its server exceeds `answer_within`. The call is then in doubt. Its server is told,
and may still answer for a while (MCP 2025-11-25, utilities/cancellation).
"""

import asyncio
import logging
from math import inf

from approvals.errors import StoreError
from approvals.model import HeldCall, State
from approvals.service import ApprovalService
from gateway.hold import messages

#: Seconds between looks at a running call, should the signal of a change be lost.
LOOK = 15.0
#: Seconds until the next look when the store fails.
RETRY = 1.0
#: Seconds for which a server that was told may still answer.
LATE = 30.0
log = logging.getLogger("okayed.forward")


async def given_up(service: ApprovalService, held: HeldCall, within: float | None) -> None:
    """Return when the call does not run any more, or has been in doubt since *within* seconds were over.

    A store that fails ends no run: the server may answer while the store recovers.
    """
    until = service.monotonic() + (within or inf)
    while held.state is State.FORWARDING:
        try:
            held = await _next(service, held, until - service.monotonic(), within or 0)
        except StoreError as error:
            log.warning("%s: the store cannot say whether it was given up: %s", held.id, error)
            await asyncio.sleep(RETRY)


async def _next(service: ApprovalService, held: HeldCall, left: float, within: float) -> HeldCall:
    """Return the call when it has changed or a look is due; put it in doubt when no time is *left*."""
    if left > 0:
        return await service.wait_for_change(held, min(left, LOOK))
    return await service.record_unanswered(
        held.id, f"The server did not answer within {messages.format_duration(within)}."
    )
