"""Signing in: by an approver's token, by a one-time code, or by the word of a trusted reverse proxy.

A session is a random secret in a cookie; the store keeps only its hash. Who has a session is looked up in the
directory at each request, so that a removed approver is out at once. No secret is ever part of an address, except
a code that works once, for ten minutes.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import hdrs, web

from approvals.model import Approver, AuditEvent, LoginSession
from approvals.service import ApprovalService
from approvals.throttle import Throttle
from approvals.web.options import Handler, WebOptions
from approvals.web.request_bodies import form
from approvals.web.responses import HttpError, redirect, render

#: Seconds until a session ends, whatever its owner does, and when nobody uses it.
ABSOLUTE = 24 * 3600.0
IDLE = 8 * 3600.0
#: Seconds a one-time code works.
CODE_LIFE = 600.0
#: A page that refreshes itself sends this header: an open tab does not show that its user is there.
REFRESH = "Okayed-Refresh"
STREAM = "/api/v1/events"

_COOKIE = "okayed"
_FRESH = web.RequestKey("fresh", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserUser:
    """A person who is signed in, and the token that their forms must carry."""

    approver: Approver
    csrf_token: str


class Login:
    """Knows who asks, and lets people in and out."""

    def __init__(self, service: ApprovalService, options: WebOptions) -> None:
        self._service = service
        self._options = options
        self._cookie = f"__Host-{_COOKIE}" if options.secure else _COOKIE
        self._seen: dict[str, float] = {}
        self._codes: dict[str, tuple[str, float]] = {}
        self._attempts = Throttle()
        # Counted apart: a program with an old token keeps nobody who comes from the same address from signing in.
        self._guesses = Throttle()

    def routes(self) -> list[web.RouteDef]:
        """The routes of signing in and out."""
        return [
            web.get("/login", self._show),
            web.post("/login", self._enter),
            web.get("/login/once/{code}", self._show_once),
            web.post("/login/once", self._enter_once),
            web.post("/logout", self._leave),
        ]

    def one_time_code(self, approver: Approver) -> str:
        """Return a code that signs *approver* in once, on the page /login/once/{code}."""
        now = self._service.clock()
        self._codes = {code: kept for code, kept in self._codes.items() if kept[1] > now}
        code = secrets.token_urlsafe(24)
        self._codes[_hash(code)] = (approver.name, now + CODE_LIFE)
        return code

    async def find_user(self, request: web.Request) -> BrowserUser | None:
        """Return who asks, or None when nobody is signed in."""
        if named := self._named_by_proxy(request):
            return self._proxied(request, named)
        secret = request.cookies.get(self._cookie, "")
        by_hand = request.path != STREAM and REFRESH not in request.headers
        session = await self._session(secret, by_hand=by_hand) if secret else None
        approver = self._service.directory.by_name(session.approver) if session else None
        return BrowserUser(approver=approver, csrf_token=_csrf_token(secret)) if approver else None

    async def require_user(self, request: web.Request) -> BrowserUser:
        """Return who asks, or send them to sign in."""
        if user := await self.find_user(request):
            return user
        if request.method not in {"GET", "HEAD"}:
            raise HttpError(401, "You are not signed in any more. Sign in and try again.")
        raise web.HTTPSeeOther(f"/login?next={_quoted(request.path_qs)}" if request.path != "/" else "/login")

    async def read_form(self, request: web.Request) -> tuple[BrowserUser, dict[str, str]]:
        """Return who posts, and the form, whose token must be theirs."""
        user = await self.require_user(request)
        fields = await form(request)
        if not hmac.compare_digest(fields.get("csrf_token", "").encode(), user.csrf_token.encode()):
            raise HttpError(403, "This form is not from your session. Open the page again.")
        return user, fields

    def authenticate_program(self, request: web.Request) -> Approver:
        """Return the approver whose token a program gives, or refuse; a good one counts however many were wrong."""
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        kind, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        approver = self._service.directory.by_token(token.strip()) if kind.lower() == "bearer" else None
        if approver is None:
            if given:
                self._failed(request, self._guesses)
            raise HttpError(401)
        return approver

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give a person whom the proxy names the cookie that their forms are bound to."""
        response = await handler(request)
        if (fresh := request.get(_FRESH)) and not response.prepared:
            self._set_cookie(response, fresh)
        return response

    def _named_by_proxy(self, request: web.Request) -> list[str]:
        if not self._options.proxy_header or not self._options.trusts(request.remote):
            return []
        return request.headers.getall(self._options.proxy_header, [])

    def _proxied(self, request: web.Request, names: list[str]) -> BrowserUser | None:
        directory = self._service.directory
        approver = directory.by_email(names[0]) or directory.by_name(names[0]) if len(names) == 1 else None
        if approver is None:
            return None
        secret = request.cookies.get(self._cookie, "")
        if not secret:
            secret = request[_FRESH] = secrets.token_urlsafe(32)
        return BrowserUser(approver=approver, csrf_token=_csrf_token(secret))

    async def _session(self, secret: str, *, by_hand: bool) -> LoginSession | None:
        now = self._service.clock()
        session = await self._service.store.find_login(_hash(secret))
        if session is None or now >= session.expires_at:
            return None
        if now >= self._seen.setdefault(session.id_sha256, now) + IDLE:
            await self._service.store.delete_login(session.id_sha256)
            return None
        if by_hand:
            self._seen[session.id_sha256] = now
        return session

    async def _show(self, request: web.Request) -> web.Response:
        onward = local_path(request.query.get("next", ""))
        if await self.find_user(request):
            return redirect(onward)
        return self._form(onward)

    def _form(self, onward: str, status: int = 200, error: str = "") -> web.Response:
        allowed = self._options.token_login
        return render("login.html", status=status, onward=onward, error=error, token_login=allowed)

    async def _enter(self, request: web.Request) -> web.Response:
        fields = await form(request)
        onward = local_path(fields.get("next", ""))
        approver = self._service.directory.by_token(fields.get("token", "").strip())
        if approver is None or not self._options.token_login:
            self._failed(request, self._attempts)
            return self._form(onward, 401, "This is not a token of an approver.")
        return await self._admit(approver, onward, "token")

    async def _show_once(self, request: web.Request) -> web.Response:
        return render("once.html", code=request.match_info["code"])

    async def _enter_once(self, request: web.Request) -> web.Response:
        fields = await form(request)
        name, until = self._codes.pop(_hash(fields.get("code", "")), ("", 0.0))
        approver = self._service.directory.by_name(name)
        if approver is None or self._service.clock() >= until:
            self._failed(request, self._attempts)
            return self._form("/", 401, "This link was already used or is too old.")
        return await self._admit(approver, "/", "code")

    def _failed(self, request: web.Request, attempts: Throttle) -> None:
        """Count a wrong token or code; raises `Refused` once there were too many from this address."""
        now, client = self._service.clock(), self._options.proxies.client(request.remote, request.headers)
        if attempts.is_blocked(client, now):
            raise HttpError(429)
        attempts.record_failure(client, now)
        self._service.store.post(
            AuditEvent(at=self._service.wall(), kind="login.refused", actor="nobody", detail={"from": client})
        )

    async def _admit(self, approver: Approver, onward: str, how: str) -> web.Response:
        now = self._service.clock()
        secret = secrets.token_urlsafe(32)
        session = LoginSession(
            id_sha256=_hash(secret), approver=approver.name, created_at=now, expires_at=now + ABSOLUTE
        )
        self._seen = {one: at for one, at in self._seen.items() if at + ABSOLUTE > now} | {
            session.id_sha256: now
        }
        await self._service.store.save_login(session)
        self._service.store.post(
            AuditEvent(
                at=self._service.wall(), kind="login.entered", actor=approver.name, detail={"how": how}
            )
        )
        answer = redirect(onward)
        self._set_cookie(answer, secret)
        return answer

    async def _leave(self, request: web.Request) -> web.Response:
        await self.read_form(request)
        session = _hash(request.cookies.get(self._cookie, ""))
        await self._service.store.delete_login(session)
        self._seen.pop(session, None)
        answer = redirect("/login")
        answer.del_cookie(self._cookie, path="/", secure=self._options.secure, httponly=True, samesite="Lax")
        return answer

    def _set_cookie(self, response: web.StreamResponse, secret: str) -> None:
        # Lax, not Strict: a link in Slack must open the page and not the login.
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
    """Return *onward* when it is a path of this site, else the front page."""
    plain = onward.startswith("/") and not onward.startswith(("//", "/\\"))
    return onward if plain and onward.isprintable() and "\\" not in onward else "/"


def _quoted(path: str) -> str:
    return quote(path, safe="/")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _csrf_token(secret: str) -> str:
    return hashlib.sha256(b"form\x00" + secret.encode()).hexdigest()
