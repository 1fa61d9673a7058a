"""Audit events of exchanges that are not held: allowed, denied, refused. Names and reasons, never arguments."""

from collections import OrderedDict
from math import inf
from typing import Any

from approvals.audit import EventTemplate
from approvals.clock import Clock
from approvals.model import AuditEvent
from approvals.store import TrailStore
from gateway.call.request import Exchange
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, protocol

MINUTE = 60.0
ALLOWED = "call.allowed"
#: The most events of which the time, or the encoding, is remembered.
MAX_REMEMBERED = 10_000


class AuditLog:
    """Posts audit events without waiting for the disk."""

    def __init__(self, trail: TrailStore, *, clock: Clock, wall: Clock) -> None:
        self._trail = trail
        self._clock = clock
        self._wall = wall
        #: When the last event was posted, by agent, kind and call.
        self._last: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        #: The events of allowed calls, by agent, server, tool and rule.
        self._allowed: dict[tuple[str, str, str, str], EventTemplate] = {}

    def event(self, exchange: Exchange, kind: str, *, tool: str = "", **detail: Any) -> AuditEvent:
        """Build an event about an exchange."""
        agent = exchange.agent.name
        return AuditEvent(
            at=self._wall(), kind=kind, actor=agent, agent=agent, server=exchange.server, tool=tool, detail=detail,
        )  # fmt: skip

    def allowed_event(self, exchange: Exchange, tool: str, rule: str) -> AuditEvent:
        """Build the event of an allowed call."""
        return self.event(exchange, ALLOWED, tool=tool, rule=rule)

    def post_allowed(self, exchange: Exchange, tool: str, rule: str) -> None:
        """Post the event of an allowed call, from a template: only its time differs."""
        agent, server = exchange.agent.name, exchange.server
        key = (agent, server, tool, rule)
        if (template := self._allowed.get(key)) is None:
            template = EventTemplate(
                kind=ALLOWED, actor=agent, agent=agent, server=server, tool=tool, detail={"rule": rule}
            )
            if len(self._allowed) >= MAX_REMEMBERED:
                self._allowed.clear()
            self._allowed[key] = template
        self._trail.post_entry(template.at(self._wall()))

    def at_most_once_a_minute(
        self, exchange: Exchange, kind: str, *, about: str = "", tool: str = "", **detail: Any
    ) -> None:
        """Post an event that an agent can repeat at will: once a minute per agent, kind and *about* (a call id)."""
        event_key, now = (exchange.agent.name, kind, about), self._clock()
        if now - self._last.get(event_key, -inf) < MINUTE:
            return
        self._last[event_key] = now
        self._last.move_to_end(event_key)
        if len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)
        self.post(exchange, kind, tool=tool, **detail)

    def post(self, exchange: Exchange, kind: str, *, tool: str = "", **detail: Any) -> None:
        """Post an event about an exchange."""
        self._trail.post(self.event(exchange, kind, tool=tool, **detail))

    def refuse(
        self, exchange: Exchange, request_id: frames.Id | None, rejection: protocol.Rejection
    ) -> Reply:
        """Post an event with the reason for refusing a frame, and return the error for the client."""
        self.post(exchange, "frame.refused", code=rejection.code, why=rejection.message)
        return frame_reply(
            frames.build_error(request_id, rejection.code, rejection.message, rejection.data),
            status=rejection.status,
        )
