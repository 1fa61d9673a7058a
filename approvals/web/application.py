"""The routes and the middleware of the inbox."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from aiohttp import web

from approvals.service import ApprovalService
from approvals.store import LoginStore
from approvals.web.api import InboxApi
from approvals.web.events import EventStreams
from approvals.web.login import Login
from approvals.web.options import Handler, WebOptions
from approvals.web.pages import InboxPages
from approvals.web.request_bodies import MAX_BODY
from approvals.web.security import SecurityMiddleware
from approvals.web.tools import ToolPages


def build_inbox(service: ApprovalService, logins: LoginStore, options: WebOptions) -> web.Application:
    """Build the inbox as an aiohttp application."""
    guard = SecurityMiddleware(options)
    login = Login(service, logins, options)
    events = EventStreams(service.store, options)
    pages = InboxPages(service, login, options)
    app = web.Application(middlewares=[guard.middleware, login.middleware], client_max_size=MAX_BODY)
    app.router.add_routes(login.routes())
    app.router.add_routes(pages.routes())
    app.router.add_routes(ToolPages(service, pages, login, options).routes())
    app.router.add_routes(InboxApi(service, login, events, options).routes())
    app.router.add_get("/healthz", _healthz)
    app.router.add_static("/static", Path(str(files("approvals.web") / "static")))
    if options.slack_actions:
        app.router.add_post("/slack/actions", options.slack_actions)
    if options.metrics:
        app.router.add_get("/metrics", _metrics_handler(options.metrics))
    app.on_response_prepare.append(guard.headers)
    app.on_shutdown.append(events.close)
    return app


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


def _metrics_handler(metrics: Callable[[], tuple[bytes, str]]) -> Handler:
    async def serve(_request: web.Request) -> web.Response:
        body, content_type = metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    return serve
