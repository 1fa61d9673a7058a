"""Signing in: with an approver token, a one-time code, or the header of a trusted reverse proxy.

A session is a random secret in a cookie; the store keeps only its hash. Each request looks its approver up in the
directory, so removing an approver takes effect at once. No URL contains a secret, except a code that works once,
within ten minutes.
"""

import hashlib
import hmac
import secrets
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import hdrs, web

from approvals.errors import StoreError
from approvals.model import Approver, AuditEvent, LoginSession
from approvals.service import ApprovalService
from approvals.store import LoginStore
from approvals.throttle import Throttle
from approvals.web.one_time_codes import hash_secret, take_code
from approvals.web.options import Handler, WebOptions
from approvals.web.request_bodies import parse_form
from approvals.web.responses import HttpError, redirect, render

#: Seconds until a session ends: in any case, and without activity.
ABSOLUTE = 24 * 3600.0
IDLE = 8 * 3600.0
#: Seconds between two writes of a session's activity.
RECORD_ACTIVITY_EVERY = 60.0
#: Header of a page that refreshes itself, which is not activity.
REFRESH = "Okayed-Refresh"
STREAM = "/api/v1/events"

_COOKIE = "okayed"
_NEW_SECRET = web.RequestKey("new_secret", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserUser:
    """An approver signed in with a browser, and the CSRF token that their forms must contain."""

    approver: Approver
    csrf_token: str


class Login:
    """Authenticates requests, and signs people in and out."""

    def __init__(self, service: ApprovalService, logins: LoginStore, options: WebOptions) -> None:
        self._service = service
        self._logins = logins
        self._options = options
        self._cookie = f"__Host-{_COOKIE}" if options.secure else _COOKIE
        # Per process, so guesses at several replicas are counted separately.
        self._wrong_logins = Throttle()
        # Separate, so that a program with an old token does not block sign-ins from the same address.
        self._wrong_bearer_tokens = Throttle()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for signing in and out."""
        return [
            web.get("/login", self._show),
            web.post("/login", self._sign_in),
            web.get("/login/once/{code}", self._show_once),
            web.post("/login/once", self._sign_in_once),
            web.post("/logout", self._sign_out),
        ]

    async def find_user(self, request: web.Request) -> BrowserUser | None:
        """Return the signed-in user, or None."""
        if names := self._proxy_names(request):
            return self._proxy_user(request, names)
        secret = request.cookies.get(self._cookie, "")
        activity = request.path != STREAM and REFRESH not in request.headers
        session = await self._session(secret, activity=activity) if secret else None
        approver = self._service.directory.by_name(session.approver) if session else None
        return BrowserUser(approver=approver, csrf_token=_csrf_token(secret)) if approver else None

    def session_id(self, request: web.Request) -> str:
        """Return the SHA-256 of the session's secret in the cookie, valid or not."""
        return hash_secret(request.cookies.get(self._cookie, ""))

    async def require_user(self, request: web.Request) -> BrowserUser:
        """Return the signed-in user, or redirect to the sign-in page. Raises `HttpError` 401 for a form."""
        if user := await self.find_user(request):
            return user
        if request.method not in {"GET", "HEAD"}:
            raise HttpError(401, "You have been signed out. Sign in and try again.")
        raise web.HTTPSeeOther(f"/login?next={_quoted(request.path_qs)}" if request.path != "/" else "/login")

    async def read_form(self, request: web.Request) -> tuple[BrowserUser, dict[str, str]]:
        """Return the signed-in user and the fields of their form. Raises `HttpError` 403 for a wrong CSRF token."""
        user = await self.require_user(request)
        fields = await parse_form(request)
        if not hmac.compare_digest(fields.get("csrf_token", "").encode(), user.csrf_token.encode()):
            raise HttpError(403, "This form is from another session. Reload the page and try again.")
        return user, fields

    def authenticate_program(self, request: web.Request) -> Approver:
        """Return the approver of a bearer token, which works even after many wrong ones.

        Raises `HttpError` 401, or 429 after too many wrong tokens from this address.
        """
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        kind, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        approver = self._service.directory.by_token(token.strip()) if kind.lower() == "bearer" else None
        if approver is None:
            if given:
                self._record_failure(request, self._wrong_bearer_tokens)
            raise HttpError(401)
        return approver

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Set the cookie that binds the forms of a user whom the proxy authenticated."""
        response = await handler(request)
        if (secret := request.get(_NEW_SECRET)) and not response.prepared:
            self._set_cookie(response, secret)
        return response

    def _proxy_names(self, request: web.Request) -> list[str]:
        if not self._options.proxy_header or not self._options.trusts(request.remote):
            return []
        return request.headers.getall(self._options.proxy_header, [])

    def _proxy_user(self, request: web.Request, names: list[str]) -> BrowserUser | None:
        directory = self._service.directory
        approver = directory.by_email(names[0]) or directory.by_name(names[0]) if len(names) == 1 else None
        if approver is None:
            return None
        secret = request.cookies.get(self._cookie, "")
        if not secret:
            secret = request[_NEW_SECRET] = secrets.token_urlsafe(32)
        return BrowserUser(approver=approver, csrf_token=_csrf_token(secret))

    async def _session(self, secret: str, *, activity: bool) -> LoginSession | None:
        now = self._service.clock()
        session = await self._logins.find_login(hash_secret(secret))
        if session is None or now >= session.expires_at:
            return None
        if now >= session.seen_at + IDLE:
            await self._logins.delete_login(session.id_sha256)
            return None
        if activity and now >= session.seen_at + RECORD_ACTIVITY_EVERY:
            with suppress(StoreError):  # the page is still readable; at worst, the session ends sooner
                self._logins.record_activity(session.id_sha256, now)
        return session

    async def _show(self, request: web.Request) -> web.Response:
        onward = local_path(request.query.get("next", ""))
        if await self.find_user(request):
            return redirect(onward)
        return self._form(onward)

    def _form(self, onward: str, status: int = 200, error: str = "") -> web.Response:
        allowed = self._options.token_login
        return render("login.html", status=status, onward=onward, error=error, token_login=allowed)

    async def _sign_in(self, request: web.Request) -> web.Response:
        fields = await parse_form(request)
        onward = local_path(fields.get("next", ""))
        approver = self._service.directory.by_token(fields.get("token", "").strip())
        if approver is None or not self._options.token_login:
            self._record_failure(request, self._wrong_logins)
            return self._form(onward, 401, "That is not a valid approver token.")
        return await self._start_session(approver, onward, "token")

    async def _show_once(self, request: web.Request) -> web.Response:
        return render("once.html", code=request.match_info["code"])

    async def _sign_in_once(self, request: web.Request) -> web.Response:
        fields = await parse_form(request)
        approver = await take_code(self._service, self._logins, fields.get("code", ""))
        if approver is None:
            self._record_failure(request, self._wrong_logins)
            return self._form("/", 401, "This link has expired or was already used.")
        return await self._start_session(approver, "/", "code")

    def _record_failure(self, request: web.Request, attempts: Throttle) -> None:
        """Record a wrong token or code. Raises `HttpError` 429 after too many from this address."""
        now, client = (
            self._service.clock(),
            self._options.proxies.find_client(request.remote, request.headers),
        )
        if attempts.is_blocked(client, now):
            raise HttpError(429)
        attempts.record_failure(client, now)
        self._service.store.post(
            AuditEvent(at=self._service.wall(), kind="login.refused", actor="nobody", detail={"from": client})
        )

    async def _start_session(self, approver: Approver, onward: str, how: str) -> web.Response:
        now = self._service.clock()
        secret = secrets.token_urlsafe(32)
        session = LoginSession(
            id_sha256=hash_secret(secret), approver=approver.name, created_at=now, expires_at=now + ABSOLUTE, seen_at=now,
        )  # fmt: skip
        await self._logins.save_login(session)
        self._service.store.post(
            AuditEvent(
                at=self._service.wall(), kind="login.entered", actor=approver.name, detail={"how": how}
            )
        )
        response = redirect(onward)
        self._set_cookie(response, secret)
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        await self.read_form(request)
        await self._logins.delete_login(self.session_id(request))
        response = redirect("/login")
        response.del_cookie(
            self._cookie, path="/", secure=self._options.secure, httponly=True, samesite="Lax"
        )
        return response

    def _set_cookie(self, response: web.StreamResponse, secret: str) -> None:
        # Lax, because with Strict a link in Slack would open the sign-in page.
        response.set_cookie(
            self._cookie,
            secret,
            max_age=int(ABSOLUTE),
            path="/",
            secure=self._options.secure,
            httponly=True,
            samesite="Lax",
        )


def local_path(onward: str) -> str:
    """Return *onward* if it is a path on this site, or "/"."""
    plain = onward.startswith("/") and not onward.startswith(("//", "/\\"))
    return onward if plain and onward.isprintable() and "\\" not in onward else "/"


def _quoted(path: str) -> str:
    return quote(path, safe="/")


def _csrf_token(secret: str) -> str:
    return hashlib.sha256(b"form\x00" + secret.encode()).hexdigest()
