"""The pages that show what each tool was taken for, why, and what the policy asks of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from aiohttp import web

from approvals.safetext import visible
from approvals.web.answers import Refused, page
from approvals.web.login import Login
from approvals.web.options import ToolView, WebOptions
from approvals.web.pages import Pages

#: Action -> (words, tone), in the order in which the tools of a server are listed.
ACTIONS: Mapping[str, tuple[str, str]] = {
    "require_approval": ("Asks a person", "wait"),
    "deny": ("Denied", "bad"),
    "allow": ("Allowed", "good"),
}


class Tools:
    """The routes below /tools; there are none where nobody says which tools there are."""

    def __init__(self, pages: Pages, login: Login, options: WebOptions) -> None:
        self._pages = pages
        self._login = login
        self._known = options.tools

    def routes(self) -> list[web.RouteDef]:
        """The routes, by path."""
        if self._known is None:
            return []
        return [web.get("/tools", self._list), web.get("/tools/{server}/{tool}", self._show)]

    def _tools(self) -> Sequence[ToolView]:
        order = list(ACTIONS)
        known = self._known() if self._known else ()
        return sorted(known, key=lambda tool: (tool.server, order.index(tool.action), tool.tool))

    async def _list(self, request: web.Request) -> web.Response:
        visitor = await self._login.required(request)
        servers: dict[str, list[tuple[str, ToolView]]] = {}
        for tool in self._tools():
            servers.setdefault(visible(tool.server), []).append((_path(tool), _safe(tool)))
        frame = await self._pages.frame(visitor, "/tools")
        return page("tools.html", **frame, servers=servers, actions=ACTIONS)

    async def _show(self, request: web.Request) -> web.Response:
        visitor = await self._login.required(request)
        wanted = (request.match_info["server"], request.match_info["tool"])
        for tool in self._tools():
            if (tool.server, tool.tool) == wanted:
                frame = await self._pages.frame(visitor, request.path)
                return page("tool.html", **frame, tool=_safe(tool), actions=ACTIONS)
        raise Refused(404, "There is no such tool.")


def _safe(tool: ToolView) -> ToolView:
    """Return the tool with the hidden characters of a stranger's text made visible."""
    return replace(
        tool,
        tool=visible(tool.tool),
        server=visible(tool.server),
        description=visible(tool.description),
        evidence=tuple(visible(line) for line in tool.evidence),
    )


def _path(tool: ToolView) -> str:
    return f"/tools/{quote(tool.server, safe='')}/{quote(tool.tool, safe='')}"
