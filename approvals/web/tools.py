"""The pages that show how each tool is classified and why, how the policy treats it, and its recent calls."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import web

from approvals.safetext import escape_hidden
from approvals.service import ApprovalService
from approvals.web.login import Login
from approvals.web.options import ToolDetails, ToolView, WebOptions
from approvals.web.pages import InboxPages
from approvals.web.responses import HttpError, redirect, render

#: Action -> (label, tone), in the order of a server's list.
ACTIONS: Mapping[str, tuple[str, str]] = {
    "require_approval": ("Needs approval", "wait"),
    "deny": ("Denied", "bad"),
    "allow": ("Allowed", "good"),
}
CATEGORIES = ("Read", "Write", "Execute", "Destructive", "Financial", "Other")
RISKS = ("Low", "Medium", "High", "Critical")
#: Filters of the list; each is a field of `ToolView`.
FILTERS = ("server", "category", "risk", "action")
#: Held calls on a tool's page.
MAX_RECENT = 10

View = TypeVar("View", ToolView, ToolDetails)


class ToolPages:
    """The routes under /tools; empty when no tool source is configured."""

    def __init__(
        self, service: ApprovalService, pages: InboxPages, login: Login, options: WebOptions
    ) -> None:
        self._service = service
        self._pages = pages
        self._login = login
        self._options = options

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        if self._options.tools is None:
            return []
        return [
            web.get("/tools", self._list),
            web.get("/tools/{server}/{tool}", self._show),
            web.post("/tools/{server}/{tool}/accept", self._accept),
        ]

    def _tools(self) -> Sequence[ToolView]:
        order = list(ACTIONS)
        known = self._options.tools() if self._options.tools else ()
        return sorted(known, key=lambda tool: (tool.server, order.index(tool.action), tool.tool))

    async def _list(self, request: web.Request) -> web.Response:
        user = await self._login.require_user(request)
        filters = {name: request.query.get(name, "") for name in FILTERS}
        tools = self._tools()
        servers: dict[str, list[tuple[str, ToolView]]] = {}
        for tool in filter_tools(tools, filters):
            servers.setdefault(escape_hidden(tool.server), []).append((_path(tool), _escape_fields(tool)))
        return render(
            "tools.html",
            **await self._pages.shared_values(user, request.path_qs),
            servers=servers,
            known=len(tools),
            filters=filters,
            names=sorted({tool.server for tool in tools}),
            categories=[
                (category, count, str(request.rel_url.update_query(category=category)))
                for category, count in _count_categories(filter_tools(tools, filters | {"category": ""}))
            ],
            every=str(request.rel_url.without_query_params("category")),
            risks=RISKS,
            actions=ACTIONS,
        )

    def _find_tool(self, request: web.Request) -> ToolView:
        wanted = (request.match_info["server"], request.match_info["tool"])
        tool = next((tool for tool in self._tools() if (tool.server, tool.tool) == wanted), None)
        if tool is None:
            raise HttpError(404, "No such tool.")
        return tool

    async def _accept(self, request: web.Request) -> web.Response:
        """Accept the definition that the page showed. Raises `HttpError` 409 if it has changed since."""
        user, fields = await self._login.read_form(request)
        tool = self._find_tool(request)
        if self._options.accept is None or fields.get("definition", "") != tool.definition:
            raise HttpError(409, "The definition has changed again. Reload the page.")
        self._options.accept(tool.server, tool.tool, user.approver.name)
        return redirect(_path(tool))

    async def _show(self, request: web.Request) -> web.Response:
        user = await self._login.require_user(request)
        tool = self._find_tool(request)
        calls = await self._service.store.summaries(limit=MAX_RECENT, tool=tool.tool, server=tool.server)
        return render(
            "tool.html",
            **await self._pages.shared_values(user, _path(tool)),
            tool=_escape_fields(tool),
            details=_escape_fields(tool.details()),
            recent=list(map(self._pages.list_row, calls.items)),
            history=f"/history?tool={quote(tool.tool, safe='')}",
            actions=ACTIONS,
        )


def filter_tools(tools: Sequence[ToolView], filters: Mapping[str, str]) -> Sequence[ToolView]:
    """Return the tools that match every filter; an empty filter matches all."""
    return [
        tool
        for tool in tools
        if all(getattr(tool, name) == value for name, value in filters.items() if value)
    ]


def _count_categories(tools: Sequence[ToolView]) -> Sequence[tuple[str, int]]:
    """Count the tools of each category."""
    counted = Counter(tool.category for tool in tools)
    return [(category, counted[category]) for category in CATEGORIES]


def _escape_fields(view: View) -> View:
    """Escape hidden characters in every text, because a server wrote some of them."""
    return replace(view, **{field.name: _escape(getattr(view, field.name)) for field in fields(view)})


def _escape(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_escape, value))
    return escape_hidden(value) if isinstance(value, str) else value


def _path(tool: ToolView) -> str:
    return f"/tools/{quote(tool.server, safe='')}/{quote(tool.tool, safe='')}"
