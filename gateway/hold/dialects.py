"""A held call as a task on the wire, in the two dialects of MCP: the extension of 2026-07-28, and 2025-11-25 (PURE)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from approvals.model import HeldCall, State
from gateway.hold import messages, request_state
from gateway.wire import frames

#: Milliseconds between two looks, and what a task is kept beyond the time that it may wait and run.
POLL_MS = 5000
KEPT_MS = 3_600_000
TERMINAL = frozenset({"completed", "failed", "cancelled"})
RELATED = "io.modelcontextprotocol/related-task"
IMMEDIATE = "io.modelcontextprotocol/model-immediate-response"

_STATUS: Mapping[State, str] = {
    State.PENDING: "working",
    State.APPROVED: "working",
    State.FORWARDING: "working",
    State.CANCELLED: "cancelled",
    State.UPSTREAM_ERROR: "failed",
}
_WORKING: Mapping[State, str] = {
    State.PENDING: "Waiting for a person to approve.",
    State.APPROVED: "Approved.",
    State.FORWARDING: "Approved, and running.",
}


def status(held: HeldCall) -> str:
    """Return the status of a task; a refusal is a completed task whose result says so, as of any tool that fails."""
    if held.outcome is not None and request_state.question(held.outcome.body) is not None:
        return "input_required"
    return _STATUS.get(held.state, "completed")


def _ttl(held: HeldCall) -> int:
    return round((held.terms.expire_after + held.terms.approved_for) * 1000) + KEPT_MS


def _dates(held: HeldCall) -> Mapping[str, str]:
    last = held.settled_at or held.decided_at or held.created_at
    return {"createdAt": messages.rfc3339(held.created_at), "lastUpdatedAt": messages.rfc3339(last)}


def _result(held: HeldCall) -> Any:
    return messages.told(held) if held.outcome is None else msgspec.Raw(held.outcome.body)


@dataclass(frozen=True, slots=True)
class Extension:
    """The extension `io.modelcontextprotocol/tasks`."""

    def task(self, task_id: str, held: HeldCall) -> dict[str, Any]:
        """Return the task itself; it is a part of the result."""
        return {
            "taskId": task_id, "status": status(held), "statusMessage": _WORKING.get(held.state, ""),
            **_dates(held), "ttlMs": _ttl(held), "pollIntervalMs": POLL_MS,
        }  # fmt: skip

    def created(self, held: HeldCall) -> Mapping[str, Any]:
        """Return the result that gives the client its handle."""
        return {"resultType": "task", **self.task(held.id, held)}

    def shown(self, task_id: str, held: HeldCall, answered: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return how the task stands, without the questions that were *answered* already."""
        return {"resultType": "complete", **self.task(task_id, held), **self._content(held, answered)}

    def _content(self, held: HeldCall, answered: Mapping[str, Any]) -> Mapping[str, Any]:
        match status(held), held.outcome:
            case "input_required", outcome if outcome is not None:
                asked = (request_state.question(outcome.body) or {}).get("inputRequests") or {}
                return {"inputRequests": {key: one for key, one in asked.items() if key not in answered}}
            case "failed", outcome if outcome is not None:
                return {"error": msgspec.Raw(outcome.body)}
            case "completed", _:
                return {"result": _result(held)}
        return {}


@dataclass(frozen=True, slots=True)
class Core2025:
    """The tasks of 2025-11-25."""

    def task(self, task_id: str, held: HeldCall) -> dict[str, Any]:
        """Return the task itself."""
        return {
            "taskId": task_id, "status": status(held), "statusMessage": _WORKING.get(held.state, ""),
            **_dates(held), "ttl": _ttl(held), "pollInterval": POLL_MS,
        }  # fmt: skip

    def created(self, held: HeldCall) -> Mapping[str, Any]:
        """Return the result that gives the client its handle, and what the model may be told meanwhile."""
        words = f"Waiting for human approval {held.id}. NOT EXECUTED yet."
        return {"task": self.task(held.id, held), "_meta": {IMMEDIATE: words}}

    def result(self, task_id: str, held: HeldCall, request_id: frames.Id) -> bytes:
        """Return the frame that answers tasks/result."""
        if held.outcome is not None and held.outcome.is_error:
            return frames.answer(request_id, held.outcome)
        result = dict(messages.told(held)) if held.outcome is None else msgspec.json.decode(held.outcome.body)
        return frames.result(
            request_id, {**result, "_meta": {**result.get("_meta", {}), RELATED: {"taskId": task_id}}}
        )


EXTENSION = Extension()
CORE_2025 = Core2025()
