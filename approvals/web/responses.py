"""Builds responses: pages from templates that escape every value, JSON, and errors of one sentence."""

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from approvals.errors import (
    AlreadyDecided,
    ApprovalError,
    Conflict,
    IllegalTransition,
    NotAnApprover,
    NotRevealed,
    OwnRequest,
    ReasonNeeded,
    StaleView,
    StoreError,
    UnknownCall,
)

STATUS: Mapping[type[ApprovalError], int] = {
    UnknownCall: 404,
    NotAnApprover: 403,
    OwnRequest: 403,
    ReasonNeeded: 400,
    AlreadyDecided: 409,
    StaleView: 409,
    NotRevealed: 409,
    Conflict: 409,
    IllegalTransition: 409,
    StoreError: 503,
}
SENTENCES: Mapping[int, str] = {
    400: "The request could not be understood.",
    401: "Send an approver token: Authorization: Bearer ….",
    403: "You are not allowed to do this.",
    404: "Not found.",
    405: "Method not allowed.",
    409: "This call was already decided.",
    413: "The request is too large.",
    415: "Unsupported content type.",
    421: "Unknown host name.",
    429: "Too many attempts. Wait a few minutes and try again.",
    500: "Something went wrong. This request decided nothing.",
    503: "Temporarily unavailable. Try again shortly.",
}

PAGES = Environment(
    loader=PackageLoader("approvals.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class HttpError(Exception):
    """Ends a request with *status* and one sentence; *facts* are further members of a JSON error."""

    def __init__(self, status: int, message: str = "", **facts: Any) -> None:
        super().__init__(message or SENTENCES[status])
        self.status = status
        self.facts = facts


def render(template: str, *, status: int = 200, **values: Any) -> web.Response:
    """Render a page."""
    return web.Response(
        status=status,
        text=PAGES.get_template(template).render(**values),
        content_type="text/html",
        charset="utf-8",
    )


def json_response(value: Any, *, status: int = 200) -> web.Response:
    """Encode *value* as a JSON response."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def error_response(request: web.Request, status: int, message: str = "", **facts: Any) -> web.Response:
    """Build an error of one sentence that echoes no input: JSON under /api/, else a page."""
    sentence = message or SENTENCES.get(status, SENTENCES[400])
    if request.path.startswith("/api/"):
        return json_response({"error": sentence, **facts}, status=status)
    return render("message.html", status=status, title=sentence, status_code=status)


def redirect(path: str) -> web.Response:
    """Redirect the browser to a page of the inbox after a form (303 See Other)."""
    return web.Response(status=303, headers={"Location": path})
