"""Ends the wait for a server's answer: a person gave up the running call, or the server exceeded `answer_within`.

The call is then in doubt. The server gets notifications/cancelled (MCP 2025-11-25, utilities/cancellation). It may
still answer within `LATE_SECONDS`.
"""

import asyncio
import logging
from math import inf

from approvals.errors import StoreError
from approvals.model import HeldCall, State
from approvals.service import ApprovalService
from gateway.hold import messages

#: Seconds between two reads of a running call, in case the signal of a change is lost.
CHECK_SECONDS = 15.0
#: Seconds until the next read when the store fails.
RETRY_SECONDS = 1.0
#: Seconds in which a server may still answer after the cancellation.
LATE_SECONDS = 30.0
log = logging.getLogger("okayed.forward")


async def wait_for_give_up(service: ApprovalService, held: HeldCall, within: float | None) -> None:
    """Return once the call is no longer forwarding; after *within* seconds, put it in doubt.

    A store that fails does not end the run: the server may answer while the store recovers.
    """
    until = service.monotonic() + (within or inf)
    while held.state is State.FORWARDING:
        try:
            held = await _wait_for_change(service, held, until - service.monotonic(), within or 0)
        except StoreError as error:
            log.warning("%s: cannot read whether it was given up: %s", held.id, error)
            await asyncio.sleep(RETRY_SECONDS)


async def _wait_for_change(service: ApprovalService, held: HeldCall, left: float, within: float) -> HeldCall:
    """Return the call after its next change or `CHECK_SECONDS`; with no time *left*, put it in doubt."""
    if left > 0:
        return await service.wait_for_change(held, min(left, CHECK_SECONDS))
    return await service.record_unanswered(
        held.id, f"The server did not answer within {messages.format_duration(within)}."
    )
