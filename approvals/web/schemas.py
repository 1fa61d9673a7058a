"""What programs send and get: each shape once, for the encoder, the decoder and the OpenAPI document."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from approvals import client_meta, model, redact
from approvals.model import State
from approvals.safetext import escape_hidden

#: The most bytes of arguments and outcome that a list shows of one call.
LISTED = 64 << 10
Count = Annotated[int, msgspec.Meta(ge=0)]


class ApproveBody(msgspec.Struct, forbid_unknown_fields=True):
    """An approval: the digest of what was looked at, and an optional note."""

    digest: str
    reason: str = ""


class DenyBody(msgspec.Struct, forbid_unknown_fields=True):
    """A denial: the reason, which the agent reads. A digest is accepted and not compared."""

    reason: str = ""
    digest: str = ""


class AcceptBody(msgspec.Struct, forbid_unknown_fields=True):
    """Whose definitions are accepted as they are now: those of all tools of a server, or of one."""

    server: str
    tool: str = ""


class AcceptedTools(msgspec.Struct):
    """The tools whose definitions were not the accepted ones before."""

    tools: tuple[str, ...]


class GiveUpBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why a person waits no longer for the server's answer to a running call."""

    reason: str


class ResolveBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a person found out about a call in doubt."""

    reason: str


class CallReview(msgspec.Struct):
    """One approver's answer."""

    approver: str
    answer: str
    reason: str
    at: datetime
    via: str


class CallOutcome(msgspec.Struct):
    """The server's answer: a result, or an error. `is_error` is true for an error and for a result with `isError`."""

    is_error: bool
    body: msgspec.Raw


class Call(msgspec.Struct):
    """A held call. `arguments_text` is the exact text that would run; `arguments` is the same as JSON.

    While `hidden` is not 0, both and `beside` lack the values that look like secrets: `reveal` shows and records them.
    `beside` is what reaches the server beside the arguments, or null; `bookkeeping` is one line that stands for what
    of it is the client's own, or "".
    `address` is where the server is, without secrets. In a list a call of more than 64 KiB is not `whole`: it lacks its
    arguments, `beside` and the body of its outcome.
    """

    id: str
    state: State
    version: Count
    server: str
    address: str
    tool: str
    agent: str
    owner: str | None
    arguments: msgspec.Raw
    arguments_text: str
    beside: msgspec.Raw
    bookkeeping: str
    hidden: Count
    whole: bool
    digest: str
    category: str
    risk: str
    severity: str
    evidence: tuple[str, ...]
    rule: str
    reason: str
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    settled_at: datetime | None
    reviews: tuple[CallReview, ...]
    needed: Count
    outcome: CallOutcome | None
    attended: bool
    collected: bool
    changes: str
    twin: str | None
    note: str
    url: str


class CallPage(msgspec.Struct):
    """Calls, newest first, and the id to give as `before` for the next page, or null."""

    calls: tuple[Call, ...]
    next: str | None


class AuditEntry(msgspec.Struct):
    """One line of the audit trail."""

    seq: Count
    at: datetime
    kind: str
    actor: str
    call: str | None
    agent: str
    server: str
    tool: str
    detail: dict[str, Any]
    prev: str
    hash: str


class AuditPage(msgspec.Struct):
    """Audit events in order, and the number to give as `after` for the next page."""

    events: tuple[AuditEntry, ...]
    next: Count


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """Why a request was refused, in one sentence; with the call's state where that is the reason."""

    error: str
    state: State | None = None


def utc(at: float) -> datetime:
    """Return epoch seconds as the UTC time that is shown, to the millisecond."""
    return datetime.fromtimestamp(round(at, 3), UTC)


def encode_call(held: model.HeldCall, url: str, viewer: str) -> Call:
    """Return a held call as the program of *viewer* sees it: with its secrets once that approver has revealed them."""
    call, kind = held.call, held.classification
    hidden = 0 if viewer in held.revealed else client_meta.hidden_values(call)
    arguments, beside = (
        _without_secrets(part) if hidden else part for part in (call.arguments, call.extra_params)
    )
    return Call(
        id=held.id,
        state=held.state,
        version=held.version,
        server=call.server,
        address=held.address,
        tool=call.tool,
        agent=call.agent,
        owner=call.owner,
        arguments=msgspec.Raw(arguments),
        arguments_text=arguments.decode(),
        beside=msgspec.Raw(beside or b"null"),
        bookkeeping=client_meta.parted(call.extra_params).line,
        hidden=hidden,
        whole=True,
        digest=held.digest,
        category=kind.category,
        risk=kind.risk,
        severity=kind.severity,
        evidence=kind.evidence,
        rule=held.rule,
        reason=held.reason,
        created_at=utc(held.created_at),
        expires_at=utc(held.expires_at),
        decided_at=_utc_or_none(held.decided_at),
        settled_at=_utc_or_none(held.settled_at),
        reviews=tuple(
            CallReview(
                approver=one.approver, answer=one.answer, reason=one.reason, at=utc(one.at), via=one.via
            )
            for one in held.reviews
        ),
        needed=held.terms.needed,
        outcome=_outcome(held.outcome, exact=viewer in held.revealed),
        attended=held.attended,
        collected=held.collected,
        changes=escape_hidden(held.changes),
        twin=held.twin,
        note=held.note,
        url=url,
    )


def summarize_call(held: model.HeldCall, url: str, viewer: str) -> Call:
    """Return a held call as a list shows it: a large one without what makes it large, which takes long to look through."""
    if _size(held) <= LISTED:
        return encode_call(held, url, viewer)
    call = msgspec.structs.replace(held.call, arguments=b"null", extra_params=b"")
    brief = encode_call(replace(held, call=call, outcome=None), url, viewer)
    outcome = CallOutcome(held.failed, msgspec.Raw(b"null")) if held.outcome else None
    return msgspec.structs.replace(brief, arguments_text="", outcome=outcome, whole=False)


def _size(held: model.HeldCall) -> int:
    """Return how many bytes of a call its agent and its server chose."""
    return sum(
        map(len, (held.call.arguments, held.call.extra_params, held.outcome.body if held.outcome else b""))
    )


def encode_event(event: model.AuditEvent) -> AuditEntry:
    """Return an audit event as programs see it."""
    return AuditEntry(
        seq=event.seq,
        at=utc(event.at),
        kind=event.kind,
        actor=event.actor,
        call=event.call,
        agent=event.agent,
        server=event.server,
        tool=event.tool,
        detail=dict(event.detail),
        prev=event.prev,
        hash=event.hash,
    )


def _outcome(outcome: model.Outcome | None, *, exact: bool) -> CallOutcome | None:
    if outcome is None:
        return None
    return CallOutcome(outcome.failed, msgspec.Raw(outcome.body if exact else _without_secrets(outcome.body)))


def _without_secrets(sent: bytes) -> bytes:
    """Return JSON without the values that look like secrets; the same bytes when there are none."""
    shown = redact.redact(sent) if sent else None
    return shown.text.encode() if shown and shown.count else sent


def _utc_or_none(at: float | None) -> datetime | None:
    return None if at is None else utc(at)
