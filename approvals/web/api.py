"""The JSON API: the same service as the pages, for programs that act as an approver with a bearer token."""

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
#: Bytes of calls on a page, which always has at least one call.
MAX_PAGE_BYTES = 16 << 20
MAX_EVENTS = 1000


class InboxApi:
    """The routes under /api/v1."""

    def __init__(
        self, service: ApprovalService, login: Login, events: EventStreams, options: WebOptions
    ) -> None:
        self._service = service
        self._login = login
        self._events = events
        self._options = options

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/api/v1/calls", self._list_calls),
            web.get("/api/v1/calls/{id}", self._show_call),
            web.post("/api/v1/calls/{id}/approve", self._approve),
            web.post("/api/v1/calls/{id}/deny", self._deny),
            web.post("/api/v1/calls/{id}/give-up", self._give_up),
            web.post("/api/v1/calls/{id}/reveal", self._reveal),
            web.post("/api/v1/calls/{id}/resolve", self._resolve),
            web.post("/api/v1/tools/accept", self._accept_tools),
            web.get("/api/v1/audit", self._list_events),
            web.get("/api/v1/events", self._stream, allow_head=False),
            web.get("/api/v1/openapi.json", self._openapi),
        ]

    async def _list_calls(self, request: web.Request) -> web.Response:
        viewer = self._login.authenticate_program(request)
        query, limit = request.query, _parse_number(request, "limit", 50, 1, MAX_CALLS)
        before = CallId(query["before"]) if query.get("before") else None
        states = parse_states(query.getall("state", []))
        names = {"tool": query.get("tool", ""), "agent": query.get("agent", "")}
        store = self._service.store
        page = await store.select(states, limit=limit, before=before, room=MAX_PAGE_BYTES, **names)
        attended = await self._service.find_attended(page.items)
        bodies = tuple(
            summarize_call(call, self._url(call), viewer.name, attended=call.id in attended)
            for call in page.items
        )
        return json_response(CallPage(bodies, page.next))

    async def _show_call(self, request: web.Request) -> web.Response:
        viewer = self._login.authenticate_program(request)
        return await self._call_response(await self._service.get(_id(request)), viewer)

    async def _reveal(self, request: web.Request) -> web.Response:
        viewer = self._login.authenticate_program(request)
        return await self._call_response(
            await self._service.reveal(_id(request), viewer, via=_via(request)), viewer
        )

    async def _approve(self, request: web.Request) -> web.Response:
        return await self._review(request, Decision.APPROVE, ApproveBody)

    async def _deny(self, request: web.Request) -> web.Response:
        return await self._review(request, Decision.DENY, DenyBody)

    async def _review(
        self, request: web.Request, answer: Decision, body_type: type[ApproveBody | DenyBody]
    ) -> web.Response:
        approver = self._login.authenticate_program(request)
        body = await request_bodies.parse_json(request, body_type)
        reason = request_bodies.normalize_reason(body.reason)
        return await self._decide(
            request,
            approver,
            lambda call_id: self._service.review(
                call_id, approver, answer, via=_via(request), reason=reason, digest=body.digest
            ),
        )

    async def _give_up(self, request: web.Request) -> web.Response:
        approver = self._login.authenticate_program(request)
        reason = request_bodies.normalize_reason(
            (await request_bodies.parse_json(request, GiveUpBody)).reason
        )
        return await self._decide(
            request,
            approver,
            lambda call_id: self._service.give_up(call_id, approver, reason, via=_via(request)),
        )

    async def _resolve(self, request: web.Request) -> web.Response:
        approver = self._login.authenticate_program(request)
        reason = request_bodies.normalize_reason(
            (await request_bodies.parse_json(request, ResolveBody)).reason
        )
        return await self._decide(
            request,
            approver,
            lambda call_id: self._service.resolve(call_id, approver, reason, via=_via(request)),
        )

    async def _accept_tools(self, request: web.Request) -> web.Response:
        approver = self._login.authenticate_program(request)
        body = await request_bodies.parse_json(request, AcceptBody)
        if self._options.accept is None:
            raise HttpError(404)
        return json_response(
            AcceptedTools(tuple(self._options.accept(body.server, body.tool, approver.name)))
        )

    async def _decide(
        self, request: web.Request, viewer: Approver, action: Callable[[CallId], Awaitable[HeldCall]]
    ) -> web.Response:
        call_id = _id(request)
        try:
            return await self._call_response(await action(call_id), viewer)
        except (AlreadyDecided, StaleView, NotRevealed) as error:
            raise HttpError(409, str(error), state=(await self._service.get(call_id)).state) from error

    async def _list_events(self, request: web.Request) -> web.Response:
        self._login.authenticate_program(request)
        query = request.query
        page = await self._service.store.search_events(
            after=_parse_number(request, "after", 0, 0, 1 << 62),
            limit=_parse_number(request, "limit", 100, 1, MAX_EVENTS),
            since=_parse_time(query.get("since", "0")),
            tool=query.get("tool", ""),
            agent=query.get("agent", ""),
            call=query.get("call", ""),
        )
        return json_response(AuditPage(tuple(map(encode_event, page.events)), page.next))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        # The only route that also accepts a cookie, because EventSource cannot send headers.
        if not await self._login.find_user(request):
            self._login.authenticate_program(request)
        if self._events.full:
            raise HttpError(503)
        session = self._login.session_id(request)
        return await self._events.serve(request, session, lambda: self._still_signed_in(request))

    async def _still_signed_in(self, request: web.Request) -> bool:
        if await self._login.find_user(request):
            return True
        try:
            self._login.authenticate_program(request)
        except HttpError:
            return False
        return True

    async def _openapi(self, request: web.Request) -> web.Response:
        self._login.authenticate_program(request)
        return json_response(openapi.build_document(self._options.url))

    async def _call_response(self, call: HeldCall, viewer: Approver) -> web.Response:
        attended = await self._service.find_attended([call])
        return json_response(encode_call(call, self._url(call), viewer.name, attended=bool(attended)))

    def _url(self, call: HeldCall) -> str:
        return f"{self._options.url.rstrip('/')}/calls/{call.id}"


def parse_states(given: list[str]) -> tuple[State, ...]:
    """Parse the `state` values of a query; each may list several states, separated by commas."""
    names = [name for value in given for name in value.split(",") if name]
    try:
        return tuple(State(name) for name in names)
    except ValueError as error:
        raise HttpError(400, f"state must be one of: {', '.join(State)}.") from error


def _id(request: web.Request) -> CallId:
    return CallId(request.match_info["id"])


def _via(request: web.Request) -> str:
    """Label reviews from our own command apart from other programs. It grants nothing."""
    return "cli" if request.headers.get("User-Agent", "").startswith("okayed/") else "api"


def _parse_number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    given = request.query.get(name, str(default))
    if not given.isascii() or not given.isdecimal() or len(given) > 19 or not least <= int(given) <= most:
        raise HttpError(400, f"{name} must be a whole number from {least} to {most}.")
    return int(given)


def _parse_time(given: str) -> float:
    if given.replace(".", "", 1).isdecimal():
        return float(given)
    try:
        at = datetime.fromisoformat(given)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except ValueError as error:
        raise HttpError(
            400, "since must be a time such as 2026-01-31T12:00:00Z, or seconds since 1970."
        ) from error
