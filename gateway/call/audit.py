"""What the audit trail is told of an exchange that no held call stands for: names and reasons, never arguments."""

from collections import OrderedDict
from math import inf
from typing import Any

from approvals.model import AuditEvent
from approvals.service import ApprovalService
from gateway.call.request import Exchange
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, protocol

MINUTE = 60.0
#: The most events whose time is remembered; the one written longest ago is forgotten first.
MAX_REMEMBERED = 10_000


class AuditLog:
    """Writes events without waiting for the disk."""

    def __init__(self, service: ApprovalService) -> None:
        self._service = service
        #: When the last event of a kind was written about an agent, and one of its calls.
        self._last: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def event(self, exchange: Exchange, kind: str, *, tool: str = "", **detail: Any) -> AuditEvent:
        """Return the event of this kind about an exchange."""
        agent = exchange.agent.name
        return AuditEvent(
            at=self._service.wall(), kind=kind, actor=agent, agent=agent, server=exchange.server, tool=tool, detail=detail,
        )  # fmt: skip

    def at_most_once_a_minute(
        self, exchange: Exchange, kind: str, *, about: str = "", tool: str = "", **detail: Any
    ) -> None:
        """Write an event that an agent can cause without end: one a minute for each agent, kind and *about* (a call's id)."""
        repeated, now = (exchange.agent.name, kind, about), self._service.clock()
        if now - self._last.get(repeated, -inf) < MINUTE:
            return
        self._last[repeated] = now
        self._last.move_to_end(repeated)
        if len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)
        self.post(exchange, kind, tool=tool, **detail)

    def post(self, exchange: Exchange, kind: str, *, tool: str = "", **detail: Any) -> None:
        """Write the event of this kind."""
        self._service.store.post(self.event(exchange, kind, tool=tool, **detail))

    def refuse(self, exchange: Exchange, request_id: frames.Id | None, wrong: protocol.Rejection) -> Reply:
        """Refuse a frame, and write down why."""
        self.post(exchange, "frame.refused", code=wrong.code, why=wrong.message)
        return frame_reply(
            frames.error(request_id, wrong.code, wrong.message, wrong.data), status=wrong.status
        )
