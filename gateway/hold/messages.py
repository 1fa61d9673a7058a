"""The tool results that the gateway itself sends: refusals, and the status of held calls (PURE).

The first sentence names the event, the next says whether the call ran. A refusal is a tool result with
`isError: true`, because clients pass that on to the model. Only faults of the gateway are JSON-RPC errors.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import msgspec

from approvals.errors import AgentBytesExceeded, HourlyBytesExceeded, QuotaExceeded, TotalBytesExceeded
from approvals.model import HeldCall, Outcome, State
from gateway.policy.limits import ExceededLimit
from gateway.wire import frames

META = "okayed/approval"
#: Milliseconds until a repeat is useful, by the state of the held call. People take longer than servers.
RETRY_MS: Mapping[State, int] = {State.PENDING: 30_000, State.APPROVED: 5000, State.FORWARDING: 5000}


def denied_result(reason: str) -> Mapping[str, Any]:
    """Return the result for a call that the policy denies."""
    return error_result(f"Denied by policy: {reason.rstrip('.')}. NOT EXECUTED.")


def limited_result(exceeded: ExceededLimit, tool: str) -> Mapping[str, Any]:
    """Return the result for a call over its rate limit, with the rule's reason."""
    limit, wait = exceeded.limit, exceeded.retry_after
    later = (
        f"Try again in {max(1, round(wait))} s." if isfinite(wait) else "This call alone exceeds the limit."
    )
    why = f" {limit.reason.rstrip('.')}." if limit.reason else ""
    return error_result(f"Rate limit: {limit.text} for {tool}. NOT EXECUTED. {later}{why}")


def too_many_waiting(error: QuotaExceeded) -> Mapping[str, Any]:
    """Return the result for a call that exceeds a quota for waiting calls."""
    return error_result(_QUOTA_TEXTS[type(error)])


_QUOTA_TEXTS: Mapping[type[QuotaExceeded], str] = {
    QuotaExceeded: "Too many of your calls already wait for a person. NOT EXECUTED. Wait for their answers first.",
    AgentBytesExceeded: "Your waiting calls use too much storage. NOT EXECUTED. Wait for their answers first, or send less.",
    TotalBytesExceeded: "The waiting calls of all agents use too much storage. NOT EXECUTED. Try again later, or send less.",
    HourlyBytesExceeded: "Your calls of the last hour use too much storage. NOT EXECUTED. Try again later, or send less.",
}


def too_many_running() -> Mapping[str, Any]:
    """Return the result for an agent with too many running calls."""
    return error_result(
        "Too many of your calls are running. NOT EXECUTED. Try again when one of them has finished."
    )


def error_result(text: str) -> Mapping[str, Any]:
    """Return an error result with *text*. 2026-07-28 requires `resultType`."""
    return {"content": [{"type": "text", "text": text}], "isError": True, "resultType": "complete"}


def status_result(call: HeldCall, *, as_result: bool = False) -> Mapping[str, Any]:
    """Return the status of *call*, for every state without an answer from the server.

    *as_result* leaves `isError` false while the call waits or runs.
    """
    meta = {"id": call.id, "state": call.state, "expiresAt": format_rfc3339(call.expires_at)}
    later = {"retryAfterMs": RETRY_MS[call.state]} if call.state in RETRY_MS else {}
    is_error = not (as_result and call.state in RETRY_MS)
    return {**error_result(_status_text(call)), "isError": is_error, "_meta": {META: {**meta, **later}}}


REPEAT_CALL = (
    "Nothing is wrong. To get the answer, make the same call with the same arguments; it runs at most once"
)
MEANWHILE = "If you have other work, do it first, or tell your user and stop."


def _status_text(call: HeldCall) -> str:
    return _waiting_text(call) if call.state in RETRY_MS else _final_text(call)


def _waiting_text(call: HeldCall) -> str:
    if call.state is State.FORWARDING:
        return f"RUNNING: this call ({call.id}) was approved and is running now. {REPEAT_CALL}. {MEANWHILE}"
    again = f"It has NOT run. {REPEAT_CALL} and can be asked for until {_format_deadline(call)}."
    if call.state is State.APPROVED:
        return f"WAITING: this call ({call.id}) is approved. {again}"
    return f"WAITING: a person has to approve this call ({call.id}). {again} {MEANWHILE}"


def _final_text(call: HeldCall) -> str:
    match call.state:
        case State.DENIED if call.denial is not None:
            denied = f"Denied by {call.denial.approver}: {call.denial.reason.rstrip('.')}. NOT EXECUTED."
            return f"{denied} Asking again will not change this." if call.terms.denied_for else denied
        case State.EXPIRED if call.enough:
            return f"Approved, but not collected within {format_duration(call.terms.approved_for)}. NOT EXECUTED. You may ask again."
        case State.EXPIRED:
            return f"Nobody answered within {format_duration(call.terms.expire_after)}. NOT EXECUTED. You may ask again."
        case State.CANCELLED:
            return f"Cancelled: {call.note or 'the request was withdrawn'}. NOT EXECUTED."
        case State.VOIDED:
            return f"No longer valid: {call.note.rstrip('.')}. NOT EXECUTED. You may ask again."
        case State.NOT_SENT:
            return f"{call.note.rstrip('.')}. NOT EXECUTED. You may ask again."
        case State.RESOLVED:
            return f"The server gave no answer to this call. A person looked into it: {call.note}"
        case _:
            unanswered = "The server gave no answer to this call."
            return f"{unanswered} It MAY have run; a person has been notified. It will not be run again."


def _format_deadline(call: HeldCall) -> str:
    """Return the time by which the call must be repeated, with the date if the call was made on another day."""
    until, created = (datetime.fromtimestamp(at, UTC) for at in (call.expires_at, call.created_at))
    return f"{until:%H:%M} UTC" if until.date() == created.date() else f"{until:%Y-%m-%d %H:%M} UTC"


def mark_repeated(call: HeldCall, outcome: Outcome) -> Outcome:
    """Return the stored *outcome* with a note that the call was not run again."""
    members = frames.raw_members(outcome.body)
    about = {META: {"id": call.id, "state": call.state, "repeated": True}}
    where = "data" if outcome.is_error else "_meta"
    noted = {where: _merge_members(members.get(where), about)}
    if isinstance(_decode_raw(content := members.get("content", msgspec.Raw(b"null"))), list):
        ran = datetime.fromtimestamp(call.settled_at or call.created_at, UTC)
        line = f"This call ran at {ran:%H:%M} UTC; it was not run again."
        noted["content"] = [
            *msgspec.json.decode(content, type=list[msgspec.Raw]),
            {"type": "text", "text": line},
        ]
    return Outcome(is_error=outcome.is_error, body=msgspec.json.encode({**members, **noted}))


def _merge_members(raw: msgspec.Raw | None, more: Mapping[str, Any]) -> Any:
    """Return an object with *more* members; any other value is unchanged."""
    value = _decode_raw(raw)
    if value is None:
        return more
    return {**frames.raw_members(raw or b"{}"), **more} if isinstance(value, dict) else raw


def _decode_raw(raw: msgspec.Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)


def final_frame(call: HeldCall, request_id: frames.Id) -> bytes:
    """Return the response to a request: the server's outcome if there is one, else the status of the held call."""
    if call.outcome is None:
        return frames.build_result(request_id, status_result(call))
    return frames.build_response(request_id, call.outcome)


def format_duration(seconds: float) -> str:
    """Format a duration: `42 s`, `15 min`, `25 h`, `7 days`."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:g} {unit}" if seconds % size == 0 else f"{seconds / size:.1f} {unit}"
    return f"{seconds:g} s"


def format_rfc3339(at: float) -> str:
    """Format a time as RFC 3339, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
