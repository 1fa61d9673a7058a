"""A held call as a task of 2026-07-28, the extension `io.modelcontextprotocol/tasks` (PURE)."""

from collections.abc import Mapping
from typing import Any

import msgspec

from approvals.model import HeldCall, State
from gateway.hold import messages, request_state

#: Milliseconds between polls, and for which a task is kept after the time that it may wait and run.
POLL_MS = 5000
KEPT_MS = 3_600_000
TERMINAL = frozenset({"completed", "failed", "cancelled"})

_STATUS: Mapping[State, str] = {
    State.PENDING: "working",
    State.APPROVED: "working",
    State.FORWARDING: "working",
    State.CANCELLED: "cancelled",
    State.UPSTREAM_ERROR: "failed",
}
_STATUS_MESSAGE: Mapping[State, str] = {
    State.PENDING: "Waiting for a person to approve.",
    State.APPROVED: "Approved.",
    State.FORWARDING: "Approved, and running.",
}


def status(held: HeldCall) -> str:
    """Return the status of a task. A denied task is completed: its result has `isError`, like a failing tool's."""
    if held.outcome is not None and request_state.input_required_result(held.outcome.body) is not None:
        return "input_required"
    return _STATUS.get(held.state, "completed")


def task_object(task_id: str, held: HeldCall) -> dict[str, Any]:
    """Return the task object."""
    last = held.settled_at or held.decided_at or held.created_at
    return {
        "taskId": task_id,
        "status": status(held),
        "statusMessage": _STATUS_MESSAGE.get(held.state, ""),
        "createdAt": messages.format_rfc3339(held.created_at),
        "lastUpdatedAt": messages.format_rfc3339(last),
        "ttlMs": round((held.terms.expire_after + held.terms.approved_for) * 1000) + KEPT_MS,
        "pollIntervalMs": POLL_MS,
    }


def created_result(held: HeldCall) -> Mapping[str, Any]:
    """Return the result of a tools/call that became a task."""
    return {"resultType": "task", **task_object(held.id, held)}


def get_result(task_id: str, held: HeldCall, answered: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the result of tasks/get, without the server's questions that are already *answered*."""
    return {"resultType": "complete", **task_object(task_id, held), **_content(held, answered)}


def _content(held: HeldCall, answered: Mapping[str, Any]) -> Mapping[str, Any]:
    match status(held), held.outcome:
        case "input_required", outcome if outcome is not None:
            questions = (request_state.input_required_result(outcome.body) or {}).get("inputRequests") or {}
            return {"inputRequests": {key: one for key, one in questions.items() if key not in answered}}
        case "failed", outcome if outcome is not None:
            return {"error": msgspec.Raw(outcome.body)}
        case "completed", None:
            return {"result": messages.status_result(held)}
        case "completed", outcome if outcome is not None:
            return {"result": msgspec.Raw(outcome.body)}
    return {}
