"""The audit events of held calls: what the trail says of each change, refusal and late answer (PURE)."""

from collections.abc import Mapping
from typing import Any

from approvals.errors import ApprovalError
from approvals.model import AuditEvent, CallId, HeldCall, Outcome, Review

#: Who acts when no person and no agent does.
GATEWAY = "okayed"


def kind_of(old: HeldCall, new: HeldCall) -> str:
    """Return the kind of event that a change is, where nothing else says it."""
    if old.state is not new.state:
        return f"hold.{new.state}"
    if old.reviews != new.reviews:
        return "hold.review"
    return "hold.attended" if new.attended else "hold.unattended"


def changed(call: HeldCall, actor: str, at: float, kind: str, **detail: Any) -> AuditEvent:
    """Return the event of a change, with the call as it is now; what is empty in *detail* is left out."""
    facts: Mapping[str, Any] = {
        "version": call.version,
        "state": call.state,
        "rule": call.rule,
        "digest": call.digest,
    }
    given = {name: value for name, value in detail.items() if value}
    note = {"note": call.note} if call.note else {}
    return AuditEvent(
        at=at,
        kind=kind,
        actor=actor,
        call=call.id,
        agent=call.call.agent,
        server=call.call.server,
        tool=call.call.tool,
        detail={**facts, **note, **given},
    )


def refusal(call_id: CallId, given: Review, refused: ApprovalError, at: float) -> AuditEvent:
    """Return the event of a review that was refused."""
    detail = {"answer": given.answer, "via": given.via, "why": type(refused).__name__}
    return AuditEvent(at=at, kind="review.refused", actor=given.approver, call=call_id, detail=detail)


def late(call: HeldCall, outcome: Outcome, at: float) -> AuditEvent:
    """Return the event of an answer that came after a person had said what became of the call."""
    return AuditEvent(
        at=at, kind="answer.late", actor=GATEWAY, call=call.id, detail={"failed": outcome.failed},
        agent=call.call.agent, server=call.call.server, tool=call.call.tool,
    )  # fmt: skip
