"""The audit events of held calls: changes, refused reviews and late answers (PURE)."""

from collections.abc import Mapping
from typing import Any

from approvals.errors import ApprovalError
from approvals.model import AuditEvent, CallId, HeldCall, Outcome, Review

#: The actor of events that neither a person nor an agent caused.
GATEWAY = "okayed"


def event_kind(old: HeldCall, new: HeldCall) -> str:
    """Return the kind of event for a change that has no kind of its own."""
    return "hold.review" if old.state is new.state else f"hold.{new.state}"


def change_event(call: HeldCall, actor: str, at: float, kind: str, **detail: Any) -> AuditEvent:
    """Return the event of a change to *call*, its new value; empty values in *detail* are left out."""
    facts: Mapping[str, Any] = {
        "version": call.version,
        "state": call.state,
        "rule": call.rule,
        "digest": call.digest,
    }
    present = {name: value for name, value in detail.items() if value}
    note = {"note": call.note} if call.note else {}
    return AuditEvent(
        at=at,
        kind=kind,
        actor=actor,
        call=call.id,
        agent=call.call.agent,
        server=call.call.server,
        tool=call.call.tool,
        detail={**facts, **note, **present},
    )


def refusal_event(call_id: CallId, given: Review, refused: ApprovalError, at: float) -> AuditEvent:
    """Return the event of a refused review."""
    detail = {"answer": given.answer, "via": given.via, "why": type(refused).__name__}
    return AuditEvent(at=at, kind="review.refused", actor=given.approver, call=call_id, detail=detail)


def late_answer_event(call: HeldCall, outcome: Outcome, at: float) -> AuditEvent:
    """Return the event of an answer that came after a person had resolved the call."""
    return AuditEvent(
        at=at, kind="answer.late", actor=GATEWAY, call=call.id, detail={"failed": outcome.failed},
        agent=call.call.agent, server=call.call.server, tool=call.call.tool,
    )  # fmt: skip
