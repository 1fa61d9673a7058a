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
    "409": "The call was already decided or has expired, the digest does not match, or hidden values were not revealed.",
    "413": "The body is too large.",
    "415": "The body is not application/json in UTF-8.",
    "429": "Too many wrong tokens from this address.",
}
_READ = ("400", "401", "429")
_WRITE = tuple(_ERRORS)


def document(url: str) -> Mapping[str, Any]:
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
    call = _parameter("id", "The call's id.", place="path", required=True)
    return {
        "/api/v1/calls": {
            "get": _operation(
                "List calls, newest first.",
                CallPage,
                _READ,
                _parameter("state", f"Only calls in this state; may be repeated. One of {', '.join(State)}."),
                _parameter("tool", "Only calls of this tool."),
                _parameter("agent", "Only calls of this agent."),
                _parameter("limit", "Maximum number of calls, 1 to 200.", kind="integer"),
                _parameter("before", "Only calls older than the one with this id."),
            )
        },
        "/api/v1/calls/{id}": {"get": _operation("Show a call.", Call, ("401", "404", "429"), call)},
        "/api/v1/calls/{id}/approve": {
            "post": _operation("Approve a call.", Call, _WRITE, call, body=ApproveBody)
        },
        "/api/v1/calls/{id}/deny": {
            "post": _operation("Deny a call. The agent gets the reason.", Call, _WRITE, call, body=DenyBody)
        },
        "/api/v1/calls/{id}/reveal": {
            "post": _operation(
                "Show the exact text of a call, including secrets. The audit trail records it.",
                Call,
                ("401", "403", "404", "429"),
                call,
            )
        },
        "/api/v1/calls/{id}/give-up": {
            "post": _operation(
                "Stop waiting for the server's answer to a running call. The call is then in doubt.",
                Call,
                _WRITE,
                call,
                body=GiveUpBody,
            )
        },
        "/api/v1/calls/{id}/resolve": {
            "post": _operation(
                "Record what happened to a call in doubt.", Call, _WRITE, call, body=ResolveBody
            )
        },
        "/api/v1/tools/accept": {
            "post": _operation(
                "Accept the current definitions of a server's tools.",
                AcceptedTools,
                ("400", "401", "404", "413", "415", "429"),
                body=AcceptBody,
            )
        },
        "/api/v1/audit": {
            "get": _operation(
                "Read the audit trail.",
                AuditPage,
                _READ,
                _parameter("after", "Only events after this sequence number.", kind="integer"),
                _parameter("limit", "Maximum number of events, 1 to 1000.", kind="integer"),
                _parameter("since", "Only events at or after this time: RFC 3339, or seconds since 1970."),
                _parameter("tool", "Only events of this tool."),
                _parameter("agent", "Only events of this agent."),
                _parameter("call", "Only events of the call with this id."),
            )
        },
        "/api/v1/events": {
            "get": {
                "summary": "Stream changes as server-sent events named `inbox`, without content.",
                "responses": {
                    "200": {"description": "The stream.", "content": {"text/event-stream": {}}},
                    **_error_responses(("401", "429", "503")),
                },
            }
        },
        "/api/v1/openapi.json": {
            "get": {
                "summary": "This document.",
                "responses": {
                    "200": {"description": "OpenAPI 3.1.", "content": {"application/json": {}}},
                    **_error_responses(("401", "429")),
                },
            }
        },
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
        "responses": {
            "200": {"description": "Success.", "content": _json(response)},
            **_error_responses(errors),
        },
    }


def _error_responses(codes: tuple[str, ...]) -> dict[str, Any]:
    words = _ERRORS | {"503": "Too many open streams."}
    return {code: {"description": words[code], "content": _json(ErrorBody)} for code in codes}


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
