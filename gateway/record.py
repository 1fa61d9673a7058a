"""What the audit trail is told of an exchange that no held call stands for: names and reasons, never arguments."""

from math import inf
from typing import Any

from approvals.model import AuditEvent
from approvals.service import ApprovalService
from gateway import frames, protocol
from gateway.incoming import Incoming
from gateway.upstreams import Reply, frame_reply

MINUTE = 60.0


class Record:
    """Writes events without waiting for the disk."""

    def __init__(self, service: ApprovalService) -> None:
        self._service = service
        #: When the last event of a kind was written about an agent.
        self._last: dict[tuple[str, str], float] = {}

    def event(self, incoming: Incoming, kind: str, *, tool: str = "", **detail: Any) -> AuditEvent:
        """Return the event of this kind about an exchange."""
        agent = incoming.agent.name
        return AuditEvent(
            at=self._service.wall(), kind=kind, actor=agent, agent=agent, server=incoming.server, tool=tool, detail=detail,
        )  # fmt: skip

    def at_most_once_a_minute(self, incoming: Incoming, kind: str, **detail: Any) -> None:
        """Write what an agent can repeat without end: an event of this kind, but one per agent and minute at most."""
        agent, now = incoming.agent.name, self._service.clock()
        if now - self._last.get((agent, kind), -inf) >= MINUTE:
            self._last[agent, kind] = now
            self.post(incoming, kind, **detail)

    def post(self, incoming: Incoming, kind: str, *, tool: str = "", **detail: Any) -> None:
        """Write the event of this kind."""
        self._service.store.post(self.event(incoming, kind, tool=tool, **detail))

    def refuse(self, incoming: Incoming, request_id: frames.Id | None, wrong: protocol.Rejection) -> Reply:
        """Refuse a frame, and write down why."""
        self.post(incoming, "frame.refused", code=wrong.code, why=wrong.message)
        return frame_reply(
            frames.error(request_id, wrong.code, wrong.message, wrong.data), status=wrong.status
        )
