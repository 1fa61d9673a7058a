"""The pages for reviewing calls. GET only shows; a POST from a form of the same session decides and redirects."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from approvals import cards, client_meta
from approvals.errors import (
    AlreadyDecided,
    ApprovalError,
    NotAnApprover,
    NotRevealed,
    OwnRequest,
    ReasonNeeded,
    StaleView,
)
from approvals.model import Approver, CallId, Decision, HeldCall, State
from approvals.redact import redact
from approvals.safetext import ascii_name, escape_hidden
from approvals.service import ApprovalService
from approvals.store.call_lists import MAX_SEARCHED
from approvals.summaries import Summary
from approvals.web import request_bodies, views
from approvals.web.login import BrowserUser, Login
from approvals.web.nested_json import unpack_json
from approvals.web.options import WebOptions
from approvals.web.responses import STATUS, HttpError, redirect, render

#: Calls on a page of the history, and on the front page.
PER_PAGE = 50
MAX_WAITING = 200
#: States in which a call needs a person.
NEEDS_PERSON = (State.PENDING, State.IN_DOUBT)

#: Badges of calls that the user may not decide.
BADGES: Mapping[type[ApprovalError], str] = {
    NotAnApprover: "for other approvers",
    OwnRequest: "your own agent",
}

_EXPECTED_ERRORS = (AlreadyDecided, StaleView, NotRevealed, NotAnApprover, OwnRequest, ReasonNeeded)


class InboxPages:
    """The routes of the list, the calls and the history."""

    def __init__(self, service: ApprovalService, login: Login, options: WebOptions) -> None:
        self._service = service
        self._login = login
        self._options = options

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/", self._list_waiting),
            web.get("/calls/{id}", self._show_call),
            web.post("/calls/{id}/approve", self._approve),
            web.post("/calls/{id}/deny", self._deny),
            web.post("/calls/{id}/give-up", self._give_up),
            web.post("/calls/{id}/resolve", self._resolve),
            web.post("/calls/{id}/reveal", self._reveal),
            web.get("/history", self._list_history),
        ]

    async def _list_waiting(self, request: web.Request) -> web.Response:
        user = await self._login.require_user(request)
        return render("waiting.html", **await self.shared_values(user, "/"), last=await self._last_decision())

    async def shared_values(self, user: BrowserUser, path: str, *shown: HeldCall) -> dict[str, Any]:
        """Return the values that all pages share: the user, the calls that need a person, and which of them are attended.

        *shown*: another call on the page.
        """
        waiting = await self._service.store.summaries(NEEDS_PERSON, limit=MAX_WAITING)
        soonest = sorted(waiting.items, key=lambda call: (call.state is State.IN_DOUBT, call.expires_at))
        attended = await self._service.find_attended([*soonest, *shown])
        return {
            "user": user,
            "path": path,
            "rows": [
                self.list_row(call, self._badge(user.approver, call), unattended=call.id not in attended)
                for call in soonest
            ],
            "attended": attended,
            "tools_shown": self._options.tools is not None,
        }

    async def _last_decision(self) -> str:
        others = tuple(state for state in State if state not in NEEDS_PERSON)
        for call in (await self._service.store.summaries(others, limit=1)).items:
            when = views.format_age(self._service.clock() - (call.decided_at or call.created_at))
            who = ", ".join(views.find_deciders(call.reviews)) or "okayed"
            tool, server = ascii_name(call.call.tool), ascii_name(call.call.server)
            return f"Last call: {tool} on {server}, {views.label_state(call)[0].lower()} ({who}, {when})."
        return ""

    async def _show_call(self, request: web.Request) -> web.Response:
        user = await self._login.require_user(request)
        return await self._render_call(user, await self._service.get(_id(request)))

    async def _render_call(
        self, user: BrowserUser, call: HeldCall, *, status: int = 200, error: str = ""
    ) -> web.Response:
        shared = await self.shared_values(user, f"/calls/{call.id}", call)
        card = cards.build_card(call, self._options.url, attended=call.id in shared["attended"])
        word, tone = views.label_state(call)
        exact = "" if card.redacted and user.approver.name not in call.revealed else _exact(call)
        return render(
            "call.html",
            status=status,
            **shared,
            call=call,
            card=card,
            word=word,
            tone=tone,
            explanation=views.explain_state(call),
            sent=views.SENT.get(call.state, "would have been sent"),
            arguments=views.highlight(card.arguments),
            extra_params=views.highlight(card.extra_params),
            client_metadata=views.highlight(client_meta.split_params(call.call.extra_params).text),
            changes=views.mark_hidden(card.changes),
            exact=views.highlight(exact),
            documents=[(place, views.highlight(text)) for place, text in unpack_json(call.call.arguments)],
            response=views.highlight(escape_hidden(redact(call.outcome.body).text)) if call.outcome else (),
            size=len(call.call.arguments),
            created=views.format_timestamp(call.created_at),
            expires=views.format_timestamp(call.expires_at),
            decided=views.format_timestamp(call.decided_at) if call.decided_at else None,
            settled=views.format_timestamp(call.settled_at) if call.settled_at else None,
            objection=str(self._find_objection(user.approver, call) or ""),
            approved=_has_reviewed(user.approver, call),
            error=error,
        )

    def _find_objection(
        self, approver: Approver, call: HeldCall | Summary
    ) -> NotAnApprover | OwnRequest | None:
        """Return why this approver may not review the call, or None."""
        try:
            self._service.directory.may_review(approver, call)
        except (NotAnApprover, OwnRequest) as error:
            return error
        return None

    def _badge(self, approver: Approver, call: Summary) -> str:
        """Return the badge of an open call that this approver cannot decide, or ""."""
        if error := self._find_objection(approver, call):
            return BADGES[type(error)]
        return "approved by you" if call.state is State.PENDING and _has_reviewed(approver, call) else ""

    async def _approve(self, request: web.Request) -> web.Response:
        return await self._review(request, Decision.APPROVE)

    async def _deny(self, request: web.Request) -> web.Response:
        return await self._review(request, Decision.DENY)

    async def _review(self, request: web.Request, answer: Decision) -> web.Response:
        user, fields = await self._login.read_form(request)
        reason, digest = request_bodies.normalize_reason(fields.get("reason", "")), fields.get("digest", "")
        return await self._decide(
            request,
            user,
            lambda call_id: self._service.review(
                call_id, user.approver, answer, via="inbox", reason=reason, digest=digest
            ),
        )

    async def _give_up(self, request: web.Request) -> web.Response:
        user, fields = await self._login.read_form(request)
        reason = request_bodies.normalize_reason(fields.get("reason", ""))
        return await self._decide(
            request,
            user,
            lambda call_id: self._service.give_up(call_id, user.approver, reason, via="inbox"),
        )

    async def _resolve(self, request: web.Request) -> web.Response:
        user, fields = await self._login.read_form(request)
        reason = request_bodies.normalize_reason(fields.get("reason", ""))
        return await self._decide(
            request,
            user,
            lambda call_id: self._service.resolve(call_id, user.approver, reason, via="inbox"),
        )

    async def _decide(
        self, request: web.Request, user: BrowserUser, action: Callable[[CallId], Awaitable[HeldCall]]
    ) -> web.Response:
        try:
            call = await action(_id(request))
        except _EXPECTED_ERRORS as error:
            now = await self._service.get(_id(request))
            return await self._render_call(user, now, status=STATUS[type(error)], error=str(error))
        return redirect(f"/calls/{call.id}")

    async def _reveal(self, request: web.Request) -> web.Response:
        """Record that the user views the call's secrets. From then on their page shows them."""
        user, _ = await self._login.read_form(request)
        call = await self._service.reveal(_id(request), user.approver, via="inbox")
        return redirect(f"/calls/{call.id}#exact")

    async def _list_history(self, request: web.Request) -> web.Response:
        user = await self._login.require_user(request)
        filters = {
            name: request.query.get(name, "").strip() for name in ("state", "tool", "agent", "q", "before")
        }
        chosen = (_parse_state(filters["state"]),) if filters["state"] else ()
        page = await self._service.store.summaries(
            chosen,
            limit=PER_PAGE,
            before=CallId(filters["before"]) if filters["before"] else None,
            tool=filters["tool"],
            agent=filters["agent"],
            text=filters["q"],
        )
        return render(
            "history.html",
            **await self.shared_values(user, request.path_qs),
            filters=filters,
            filtered=any(filters.values()),
            states=[(state, views.LABELS[state][0]) for state in State],
            results=list(map(self.list_row, page.items)),
            older=request.rel_url.update_query(before=page.next).raw_path_qs if page.next else "",
            searched=f"{MAX_SEARCHED:,}" if page.next and len(page.items) < PER_PAGE else "",
        )

    def list_row(self, call: Summary, badge: str = "", *, unattended: bool = False) -> views.CallRow:
        """Build the row of a call in a list, with *badge* on it."""
        return views.build_row(call, cards.build_preview(call), badge, unattended=unattended)


def _has_reviewed(approver: Approver, call: HeldCall | Summary) -> bool:
    return any(given.approver == approver.name for given in call.reviews)


def _exact(call: HeldCall) -> str:
    """Return the exact text that would reach the server."""
    tool_call = call.call
    more = f"\n\nalso sent:\n{tool_call.extra_params.decode()}" if tool_call.extra_params else ""
    return escape_hidden(f"{tool_call.arguments.decode()}{more}")


def _id(request: web.Request) -> CallId:
    return CallId(request.match_info["id"])


def _parse_state(given: str) -> State:
    try:
        return State(given)
    except ValueError as error:
        raise HttpError(400) from error
