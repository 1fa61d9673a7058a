"""The API for programs: the same service as the pages, as an approver, with a bearer token and never a cookie."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from aiohttp import web

from approvals.errors import AlreadyDecided, NotRevealed, StaleView
from approvals.model import Approver, CallId, Decision, HeldCall, State
from approvals.service import ApprovalService
from approvals.web import openapi, request_bodies
from approvals.web.events import EventStreams
from approvals.web.login import Login
from approvals.web.options import WebOptions
from approvals.web.responses import HttpError, json_response
from approvals.web.schemas import (
    AcceptBody,
    AcceptedTools,
    ApproveBody,
    AuditPage,
    CallPage,
    DenyBody,
    GiveUpBody,
    ResolveBody,
    encode_call,
    encode_event,
    summarize_call,
)

MAX_CALLS = 200
#: The most bytes of calls on a page; it has one call at least.
ROOM = 16 << 20
MAX_EVENTS = 1000


class InboxApi:
    """The routes below /api/v1."""

    def __init__(
        self, service: ApprovalService, login: Login, events: EventStreams, options: WebOptions
    ) -> None:
        self._service = service
        self._login = login
        self._events = events
        self._options = options

    def routes(self) -> list[web.RouteDef]:
        """The routes, by path."""
        return [
            web.get("/api/v1/calls", self._calls),
            web.get("/api/v1/calls/{id}", self._call),
            web.post("/api/v1/calls/{id}/approve", self._approve),
            web.post("/api/v1/calls/{id}/deny", self._deny),
            web.post("/api/v1/calls/{id}/give-up", self._give_up),
            web.post("/api/v1/calls/{id}/reveal", self._reveal),
            web.post("/api/v1/calls/{id}/resolve", self._resolve),
            web.post("/api/v1/tools/accept", self._accept),
            web.get("/api/v1/audit", self._audit),
            web.get("/api/v1/events", self._follow, allow_head=False),
            web.get("/api/v1/openapi.json", self._openapi),
        ]

    async def _calls(self, request: web.Request) -> web.Response:
        viewer = self._login.authenticate_program(request)
        query, limit = request.query, _number(request, "limit", 50, 1, MAX_CALLS)
        before = CallId(query["before"]) if query.get("before") else None
        wanted, tool, agent = (
            parse_states(query.getall("state", [])),
            query.get("tool", ""),
            query.get("agent", ""),
        )
        store = self._service.store
        found = await store.select(wanted, limit=limit, before=before, tool=tool, agent=agent, room=ROOM)
        last = found[-1].id if found else None
        more = last and await store.summaries(wanted, limit=1, before=last, tool=tool, agent=agent)
        shapes = tuple(summarize_call(call, self._url(call), viewer.name) for call in found)
        return json_response(CallPage(shapes, last if more else None))

    async def _call(self, request: web.Request) -> web.Response:
        viewer = self._login.authenticate_program(request)
        return self._shown(await self._service.get(_id(request)), viewer)

    async def _reveal(self, request: web.Request) -> web.Response:
        viewer = self._login.authenticate_program(request)
        return self._shown(await self._service.reveal(_id(request), viewer, via=_via(request)), viewer)

    async def _approve(self, request: web.Request) -> web.Response:
        return await self._review(request, Decision.APPROVE, ApproveBody)

    async def _deny(self, request: web.Request) -> web.Response:
        return await self._review(request, Decision.DENY, DenyBody)

    async def _review(
        self, request: web.Request, answer: Decision, shape: type[ApproveBody | DenyBody]
    ) -> web.Response:
        approver = self._login.authenticate_program(request)
        body = await request_bodies.json(request, shape)
        reason = request_bodies.reason(body.reason)
        return await self._decided(
            request,
            approver,
            lambda call_id: self._service.review(
                call_id, approver, answer, via=_via(request), reason=reason, digest=body.digest
            ),
        )

    async def _give_up(self, request: web.Request) -> web.Response:
        approver = self._login.authenticate_program(request)
        reason = request_bodies.reason((await request_bodies.json(request, GiveUpBody)).reason)
        return await self._decided(
            request,
            approver,
            lambda call_id: self._service.give_up(call_id, approver, reason, via=_via(request)),
        )

    async def _resolve(self, request: web.Request) -> web.Response:
        approver = self._login.authenticate_program(request)
        reason = request_bodies.reason((await request_bodies.json(request, ResolveBody)).reason)
        return await self._decided(
            request,
            approver,
            lambda call_id: self._service.resolve(call_id, approver, reason, via=_via(request)),
        )

    async def _accept(self, request: web.Request) -> web.Response:
        approver = self._login.authenticate_program(request)
        body = await request_bodies.json(request, AcceptBody)
        if self._options.accept is None:
            raise HttpError(404)
        return json_response(
            AcceptedTools(tuple(self._options.accept(body.server, body.tool, approver.name)))
        )

    async def _decided(
        self, request: web.Request, viewer: Approver, decide: Callable[[CallId], Awaitable[HeldCall]]
    ) -> web.Response:
        call_id = _id(request)
        try:
            return self._shown(await decide(call_id), viewer)
        except (AlreadyDecided, StaleView, NotRevealed) as late:
            raise HttpError(409, str(late), state=(await self._service.get(call_id)).state) from late

    async def _audit(self, request: web.Request) -> web.Response:
        self._login.authenticate_program(request)
        query, after = request.query, _number(request, "after", 0, 0, 1 << 62)
        found = await self._service.store.events(
            after=after,
            limit=_number(request, "limit", 100, 1, MAX_EVENTS),
            since=_time(query.get("since", "0")),
            tool=query.get("tool", ""),
            agent=query.get("agent", ""),
            call=query.get("call", ""),
        )
        shapes = tuple(encode_event(event) for event in found)
        return json_response(AuditPage(shapes, found[-1].seq if found else after))

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        # The one route that also takes a cookie: a browser's event stream cannot send a header.
        if not await self._login.find_user(request):
            self._login.authenticate_program(request)
        if self._events.full:
            raise HttpError(503)
        return await self._events.serve(request, lambda: self._still_in(request))

    async def _still_in(self, request: web.Request) -> bool:
        if await self._login.find_user(request):
            return True
        try:
            self._login.authenticate_program(request)
        except HttpError:
            return False
        return True

    async def _openapi(self, request: web.Request) -> web.Response:
        self._login.authenticate_program(request)
        return json_response(openapi.document(self._options.url))

    def _shown(self, call: HeldCall, viewer: Approver) -> web.Response:
        return json_response(encode_call(call, self._url(call), viewer.name))

    def _url(self, call: HeldCall) -> str:
        return f"{self._options.url.rstrip('/')}/calls/{call.id}"


def parse_states(given: list[str]) -> tuple[State, ...]:
    """Return the states that a query names; each value may hold several, with commas between."""
    names = [name for value in given for name in value.split(",") if name]
    try:
        return tuple(State(name) for name in names)
    except ValueError as error:
        raise HttpError(400, f"state is one of: {', '.join(State)}.") from error


def _id(request: web.Request) -> CallId:
    return CallId(request.match_info["id"])


def _via(request: web.Request) -> str:
    """Tell our own command from other programs; a label for people, never a right."""
    return "cli" if request.headers.get("User-Agent", "").startswith("okayed/") else "api"


def _number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    given = request.query.get(name, str(default))
    if not given.isascii() or not given.isdecimal() or len(given) > 19 or not least <= int(given) <= most:
        raise HttpError(400, f"{name} is a whole number from {least} to {most}.")
    return int(given)


def _time(given: str) -> float:
    if given.replace(".", "", 1).isdecimal():
        return float(given)
    try:
        at = datetime.fromisoformat(given)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except ValueError as error:
        raise HttpError(400, "since is a time as 2026-01-31T12:00:00Z, or seconds since 1970.") from error
