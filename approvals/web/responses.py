"""How the inbox answers: pages from templates with every value escaped, JSON for programs, refusals in one sentence."""

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
    400: "This request cannot be understood.",
    401: "Give an approver's token: Authorization: Bearer ….",
    403: "This is not allowed.",
    404: "There is nothing here.",
    405: "This cannot be used that way.",
    409: "This was already decided.",
    413: "This is too large.",
    415: "This kind of content is not read here.",
    421: "This host name is not served here.",
    429: "Too many attempts. Wait a few minutes and try again.",
    500: "Something went wrong. Nothing was decided by this request.",
    503: "This cannot be served now. Try again shortly.",
}

PAGES = Environment(
    loader=PackageLoader("approvals.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class HttpError(Exception):
    """The request is answered with *status* and one sentence."""

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
    """Answer a program with JSON."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def error_response(request: web.Request, status: int, message: str = "", **facts: Any) -> web.Response:
    """Say no in one sentence that echoes nothing: JSON below /api/, else a plain page."""
    sentence = message or SENTENCES.get(status, SENTENCES[400])
    if request.path.startswith("/api/"):
        return json_response({"error": sentence, **facts}, status=status)
    return render("message.html", status=status, title=sentence, status_code=status)


def redirect(path: str) -> web.Response:
    """Send the browser on to a page of ours after a form was accepted."""
    return web.Response(status=303, headers={"Location": path})
