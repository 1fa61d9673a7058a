"""Checks every request and sets the security headers of every response.

It runs before every route, including unknown ones, and stops cross-site requests, DNS rebinding and framing. Errors
become one sentence without internal details.
"""

import logging

from aiohttp import hdrs, web

from approvals.errors import ApprovalError
from approvals.web.options import Handler, WebOptions
from approvals.web.responses import STATUS, HttpError, error_response

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Server": "okayed",
}
#: Safe methods. All others must come from a page of the inbox.
SAFE_METHODS = frozenset({"GET", "HEAD"})
#: Paths for programs, which authenticate each request without a cookie; cross-site requests gain nothing here.
PROGRAM_PATHS = ("/api/", "/slack/")


class SecurityMiddleware:
    """Checks Host, Origin and Sec-Fetch-Site, maps errors to responses, and adds headers."""

    def __init__(self, options: WebOptions) -> None:
        self._options = options

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check and serve a request. Turn every error into one sentence."""
        try:
            self._check(request)
            return await handler(request)
        except HttpError as error:
            return error_response(request, error.status, str(error), **error.facts)
        except ApprovalError as error:
            return error_response(request, STATUS.get(type(error), 400), str(error))
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _plain_error(request, error)
        except Exception:
            log.exception("A request to the inbox failed")
            return error_response(request, 500)

    def _check(self, request: web.Request) -> None:
        hosts = request.headers.getall(hdrs.HOST, [])
        if len(hosts) != 1 or not self._options.serves_host(hosts[0]):
            raise HttpError(421)
        origins = request.headers.getall(hdrs.ORIGIN, [])
        if not {origin.lower() for origin in origins} <= self._options.origins(hosts[0]):
            raise HttpError(403, "Requests from other sites are not allowed.")
        if request.method in SAFE_METHODS or request.path.startswith(PROGRAM_PATHS):
            return
        sites = request.headers.getall("Sec-Fetch-Site", [])
        if not (set(sites) <= {"same-origin", "none"} if sites else origins):
            raise HttpError(403, "Forms are accepted only from this site's pages.")

    async def headers(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Add the security headers to a response that is about to be sent."""
        response.headers.update(HEADERS)
        if self._options.secure:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"


def _plain_error(request: web.Request, error: web.HTTPException) -> web.Response:
    response = error_response(request, error.status)
    if hdrs.ALLOW in error.headers:
        response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return response
