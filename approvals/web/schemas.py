"""The bodies of the API, defined once for the encoder, the decoder and the OpenAPI document."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from approvals import client_meta, model, redact
from approvals.model import State
from approvals.safetext import escape_hidden

#: Bytes of arguments and outcome above which a list leaves them out.
MAX_LISTED = 64 << 10
Count = Annotated[int, msgspec.Meta(ge=0)]


class ApproveBody(msgspec.Struct, forbid_unknown_fields=True):
    """An approval: the digest of the call as you saw it, and an optional note."""

    digest: str
    reason: str = ""


class DenyBody(msgspec.Struct, forbid_unknown_fields=True):
    """A denial: the reason, which the agent gets. The digest is optional and not checked."""

    reason: str = ""
    digest: str = ""


class AcceptBody(msgspec.Struct, forbid_unknown_fields=True):
    """The server, and the tool whose current definition to accept; without a tool, all of them."""

    server: str
    tool: str = ""


class AcceptedTools(msgspec.Struct):
    """The tools whose definitions had changed."""

    tools: tuple[str, ...]


class GiveUpBody(msgspec.Struct, forbid_unknown_fields=True):
    """The reason for giving up on a running call."""

    reason: str


class ResolveBody(msgspec.Struct, forbid_unknown_fields=True):
    """The findings about a call in doubt."""

    reason: str


class CallReview(msgspec.Struct):
    """One approver's review."""

    approver: str
    answer: str
    reason: str
    at: datetime
    via: str


class CallOutcome(msgspec.Struct):
    """The server's result or error. `is_error` is true for an error and for a result with `isError`."""

    is_error: bool
    body: msgspec.Raw


class Call(msgspec.Struct):
    """A held call. `arguments_text` is the exact text of the arguments; `arguments` is the same as JSON.

    `hidden` counts the values that look like secrets. The arguments, `extra_params` and the outcome lack them until
    `reveal` shows them and records it.
    `extra_params` holds the other params that reach the server, or null. `client_metadata` is one line that summarizes the
    client's own metadata in it, or "". `address` is the server's address, without secrets.
    In a list, a call over 64 KiB is not `whole`: it lacks its arguments, `extra_params` and the body of its outcome.
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
    extra_params: msgspec.Raw
    client_metadata: str
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
    """Calls, newest first. `next` is the `before` of the next page, or null at the end; a short page may have one."""

    calls: tuple[Call, ...]
    next: str | None


class AuditEntry(msgspec.Struct):
    """An event of the audit trail."""

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
    """Audit events in order. `next` is the `after` of the next page; at the end of the trail it stays the same."""

    events: tuple[AuditEntry, ...]
    next: Count


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """An error in one sentence, with the call's state if that is the cause."""

    error: str
    state: State | None = None


def to_utc(at: float) -> datetime:
    """Convert epoch seconds to a UTC time, to the millisecond."""
    return datetime.fromtimestamp(round(at, 3), UTC)


def encode_call(held: model.HeldCall, url: str, viewer: str, *, attended: bool) -> Call:
    """Encode a held call for *viewer*: with its secrets only after that approver revealed them."""
    call, classification = held.call, held.classification
    hidden = 0 if viewer in held.revealed else client_meta.count_secrets(call)
    arguments, extra_params = (
        _redact(part) if hidden else part for part in (call.arguments, call.extra_params)
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
        extra_params=msgspec.Raw(extra_params or b"null"),
        client_metadata=client_meta.split_params(call.extra_params).line,
        hidden=hidden,
        whole=True,
        digest=held.digest,
        category=classification.category,
        risk=classification.risk,
        severity=classification.severity,
        evidence=classification.evidence,
        rule=held.rule,
        reason=held.reason,
        created_at=to_utc(held.created_at),
        expires_at=to_utc(held.expires_at),
        decided_at=_to_utc_or_none(held.decided_at),
        settled_at=_to_utc_or_none(held.settled_at),
        reviews=tuple(
            CallReview(
                approver=one.approver, answer=one.answer, reason=one.reason, at=to_utc(one.at), via=one.via
            )
            for one in held.reviews
        ),
        needed=held.terms.needed,
        outcome=_encode_outcome(held.outcome, exact=viewer in held.revealed),
        attended=attended,
        collected=held.collected,
        changes=escape_hidden(held.changes),
        twin=held.twin,
        note=held.note,
        url=url,
    )


def summarize_call(held: model.HeldCall, url: str, viewer: str, *, attended: bool) -> Call:
    """Encode a held call for a list. A large one lacks its large parts, which are slow to redact."""
    if _size(held) <= MAX_LISTED:
        return encode_call(held, url, viewer, attended=attended)
    call = msgspec.structs.replace(held.call, arguments=b"null", extra_params=b"")
    brief = encode_call(replace(held, call=call, outcome=None), url, viewer, attended=attended)
    outcome = CallOutcome(held.failed, msgspec.Raw(b"null")) if held.outcome else None
    return msgspec.structs.replace(brief, arguments_text="", outcome=outcome, whole=False)


def _size(held: model.HeldCall) -> int:
    """Return the size of the arguments, the other params and the outcome, in bytes."""
    return sum(
        map(len, (held.call.arguments, held.call.extra_params, held.outcome.body if held.outcome else b""))
    )


def encode_event(event: model.AuditEvent) -> AuditEntry:
    """Encode an audit event."""
    return AuditEntry(
        seq=event.seq,
        at=to_utc(event.at),
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


def _encode_outcome(outcome: model.Outcome | None, *, exact: bool) -> CallOutcome | None:
    if outcome is None:
        return None
    return CallOutcome(outcome.failed, msgspec.Raw(outcome.body if exact else _redact(outcome.body)))


def _redact(sent: bytes) -> bytes:
    """Remove values that look like secrets from JSON; without any, return the same bytes."""
    shown = redact.redact(sent) if sent else None
    return shown.text.encode() if shown and shown.count else sent


def _to_utc_or_none(at: float | None) -> datetime | None:
    return None if at is None else to_utc(at)
