"""Builds held calls: from a request that needs approval, or from the answers that continue an approved call (PURE)."""

import msgspec

from approvals import digest
from approvals.model import CallId, Classification, HeldCall, State
from gateway.call import envelope
from gateway.call.request import CallRequest
from gateway.call.settings import ProxySettings
from gateway.hold.outbound import Outbound
from gateway.policy.evaluation import Action, Verdict
from gateway.tools.catalogue import Tool
from gateway.tools.pins import format_diff


def from_request(
    request: CallRequest, tool: Tool, verdict: Verdict, settings: ProxySettings,
    *, call_id: CallId, now: float, task: bool,
) -> HeldCall:  # fmt: skip
    """Return the held call for a request.

    An allowed call is held only as a task, and is approved from the start.
    """
    allowed = verdict.action is Action.ALLOW
    server = request.exchange.server
    identity = settings.identities.get(server, "")
    return HeldCall(
        id=call_id,
        call=request.call,
        terms=verdict.terms,
        classification=_classification(tool),
        rule=verdict.rule,
        reason=verdict.reason,
        policy_revision=settings.policy.revision,
        definition=tool.hash,
        identity=identity,
        address=settings.addresses.get(server, ""),
        changes=format_diff(tool.accepted, tool.canonical) if tool.accepted and tool.canonical else "",
        key=request.key,
        digest=digest.digest(request.call, tool.hash, identity),
        created_at=now,
        state=State.APPROVED if allowed else State.PENDING,
        decided_at=now if allowed else None,
        expires_at=now + (verdict.terms.approved_for if allowed else verdict.terms.expire_after),
        task=task,
    )


def from_answers(held: HeldCall, answered: Outbound, *, call_id: CallId, now: float, task: bool) -> HeldCall:
    """Return the call that continues *held* under its approval; *answered* has the client's answers."""
    frame = envelope.with_approved_meta(answered.frame, held.call)
    call = msgspec.structs.replace(
        held.call,
        extra_params=envelope.extra_params(frame),
        envelope=envelope.pack(frame, answered.headers, answered.opening),
    )
    return HeldCall(
        id=call_id,
        call=call,
        terms=held.terms,
        classification=held.classification,
        rule=held.rule,
        reason=held.reason,
        policy_revision=held.policy_revision,
        definition=held.definition,
        identity=held.identity,
        address=held.address,
        key=digest.key(call, envelope.continuation_params(frame)),
        digest=held.digest,
        created_at=now,
        expires_at=0.0,
        task=task,
    )


def _classification(tool: Tool) -> Classification:
    known = tool.classification
    return Classification(
        category=known.category, risk=known.risk, severity=known.severity, evidence=known.evidence
    )
