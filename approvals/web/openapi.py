"""Builds the OpenAPI 3.1 document of the API from the structs that encode and decode its bodies."""

from collections.abc import Mapping
from typing import Any

import msgspec

from approvals.model import State
from approvals.web.schemas import (
    AcceptBody,
    AcceptedTools,
    ApproveBody,
    AuditPage,
    Call,
    CallPage,
    DenyBody,
    ErrorBody,
    GiveUpBody,
    ResolveBody,
)

_REF = "#/components/schemas/{name}"
_SCHEMAS = (
    CallPage,
    Call,
    AuditPage,
    ErrorBody,
    ApproveBody,
    DenyBody,
    GiveUpBody,
    ResolveBody,
    AcceptBody,
    AcceptedTools,
)
_ERRORS = {
    "400": "The request is malformed, or a reason is missing.",
    "401": "No valid approver token was sent.",
    "403": "You are not an approver of this call, or you own the agent that made it.",
    "404": "No such call.",
    "409": "The call was already decided or expired, the digest does not match, or hidden values are not revealed.",
    "413": "The body is too large.",
    "415": "The body is not application/json in UTF-8.",
    "429": "Too many wrong tokens from this address.",
    "503": "Too many open streams.",
}
_READ = ("400", "401", "429")
_WRITE = ("400", "401", "403", "404", "409", "413", "415", "429")


def build_document(url: str) -> Mapping[str, Any]:
    """Build the document for the API at *url*."""
    _, components = msgspec.json.schema_components(_SCHEMAS, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Okayed inbox",
            "version": "1",
            "description": "Review held tool calls from a program that acts as an approver.",
        },
        "servers": [{"url": url}],
        "security": [{"approver": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"approver": {"type": "http", "scheme": "bearer"}},
            "schemas": components,
        },
    }


def _paths() -> dict[str, Any]:
    return {
        f"/api/v1/{path}": {method: operation}
        for (method, path), operation in {**_CALLS, **_REVIEWS, **_OTHERS}.items()
    }


def _operation(
    summary: str,
    response: type[msgspec.Struct],
    errors: tuple[str, ...],
    *parameters: Any,
    body: type[msgspec.Struct] | None = None,
) -> dict[str, Any]:
    request_body = {"requestBody": {"required": True, "content": _json(body)}} if body else {}
    return {
        "summary": summary,
        "parameters": list(parameters),
        **request_body,
        "responses": {"200": {"description": "Success.", "content": _json(response)}, **_errors(errors)},
    }


def _untyped(summary: str, description: str, content_type: str, errors: tuple[str, ...]) -> dict[str, Any]:
    """Describe a response without a schema."""
    success = {"description": description, "content": {content_type: {}}}
    return {"summary": summary, "responses": {"200": success, **_errors(errors)}}


def _errors(codes: tuple[str, ...]) -> dict[str, Any]:
    return {code: {"description": _ERRORS[code], "content": _json(ErrorBody)} for code in codes}


def _json(schema: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=schema.__name__)}}}


def _parameter(
    name: str, description: str, *, place: str = "query", required: bool = False, kind: str = "string"
) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": required,
        "description": description,
        "schema": {"type": kind},
    }


_ID = _parameter("id", "The call's id.", place="path", required=True)
#: (method, path) -> operation.
_CALLS = {
    ("get", "calls"): _operation(
        "List calls, newest first. A page looks at 10,000 calls at most: follow `next` until it is null.", CallPage, _READ,
        _parameter("state", f"Only calls in this state; may be repeated. One of {', '.join(State)}."),
        _parameter("tool", "Only calls of this tool."),
        _parameter("agent", "Only calls of this agent."),
        _parameter("limit", "Maximum number of calls, 1 to 200.", kind="integer"),
        _parameter("before", "Only calls older than the one with this id."),
    ),
    ("get", "calls/{id}"): _operation("Show a call.", Call, ("401", "404", "429"), _ID),
}  # fmt: skip
_REVIEWS = {
    ("post", "calls/{id}/approve"): _operation("Approve a call.", Call, _WRITE, _ID, body=ApproveBody),
    ("post", "calls/{id}/deny"): _operation(
        "Deny a call. The agent gets the reason.", Call, _WRITE, _ID, body=DenyBody
    ),
    ("post", "calls/{id}/reveal"): _operation(
        "Show the exact text of a call, including secrets. The audit trail records it.",
        Call, ("401", "403", "404", "429"), _ID,
    ),
    ("post", "calls/{id}/give-up"): _operation(
        "Stop waiting for the server's answer to a running call. The call is then in doubt.",
        Call, _WRITE, _ID, body=GiveUpBody,
    ),
    ("post", "calls/{id}/resolve"): _operation(
        "Record what happened to a call in doubt.", Call, _WRITE, _ID, body=ResolveBody
    ),
}  # fmt: skip
_OTHERS = {
    ("post", "tools/accept"): _operation(
        "Accept the current definitions of a server's tools.",
        AcceptedTools, ("400", "401", "404", "413", "415", "429"), body=AcceptBody,
    ),
    ("get", "audit"): _operation(
        "Read the audit trail. A page looks at 10,000 events at most: follow `next` until it stays the same.",
        AuditPage, _READ,
        _parameter("after", "Only events after this sequence number.", kind="integer"),
        _parameter("limit", "Maximum number of events, 1 to 1000.", kind="integer"),
        _parameter("since", "Only events at or after this time: RFC 3339, or seconds since 1970."),
        _parameter("tool", "Only events of this tool."),
        _parameter("agent", "Only events of this agent."),
        _parameter("call", "Only events of the call with this id."),
    ),
    ("get", "events"): _untyped(
        "Stream changes as server-sent events named `inbox`, without content.",
        "The stream.", "text/event-stream", ("401", "429", "503"),
    ),
    ("get", "openapi.json"): _untyped("This document.", "OpenAPI 3.1.", "application/json", ("401", "429")),
}  # fmt: skip
