"""The door of the inbox: who may ask under which name, from which page, and the headers of every answer.

It stands before every route, also before those that do not exist. A browser on another site, a rebound DNS name
and a page in a frame get nothing; what goes wrong inside is told in one sentence without a trace of the cause.
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
#: Reads change nothing; everything else must come from a page of ours.
READS = frozenset({"GET", "HEAD"})
#: Where programs post: they prove themselves with each request, so no browser can be used against them.
PROGRAMS = ("/api/", "/slack/")


class SecurityMiddleware:
    """The checks before, and the headers after, every route."""

    def __init__(self, options: WebOptions) -> None:
        self._options = options

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the request, serve it, and turn whatever goes wrong into one plain sentence."""
        try:
            self._check(request)
            return await handler(request)
        except HttpError as refused:
            return error_response(request, refused.status, str(refused), **refused.facts)
        except ApprovalError as error:
            return error_response(request, STATUS.get(type(error), 400), str(error))
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _plain(request, error)
        except Exception:
            log.exception("A page of the inbox failed")
            return error_response(request, 500)

    def _check(self, request: web.Request) -> None:
        hosts = request.headers.getall(hdrs.HOST, [])
        if len(hosts) != 1 or not self._options.knows_host(hosts[0]):
            raise HttpError(421)
        origins = request.headers.getall(hdrs.ORIGIN, [])
        if not {origin.lower() for origin in origins} <= self._options.origins(hosts[0]):
            raise HttpError(403, "Requests from another site are not allowed.")
        if request.method in READS or request.path.startswith(PROGRAMS):
            return
        sites = request.headers.getall("Sec-Fetch-Site", [])
        if not (set(sites) <= {"same-origin", "none"} if sites else origins):
            raise HttpError(403, "Forms are accepted only from this site's own pages.")

    async def headers(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Put the headers on an answer that is about to be sent."""
        response.headers.update(HEADERS)
        if self._options.secure:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"


def _plain(request: web.Request, error: web.HTTPException) -> web.Response:
    answer = error_response(request, error.status)
    if hdrs.ALLOW in error.headers:
        answer.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return answer
