"""Relays every frame that is not a tool call; filters tool lists, offers tasks, and answers for the gateway's tasks."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

from gateway.call.audit import AuditLog
from gateway.call.exchange_limits import ExchangeLimits, Kind
from gateway.call.hold_settings import TaskOffer
from gateway.call.request import Exchange
from gateway.call.sessions import MAX_OPENING, Session, Sessions
from gateway.call.settings import ProxySettings
from gateway.hold import elicitation
from gateway.hold.answering import HeldAnswers
from gateway.hold.tasks import subscriptions
from gateway.hold.tasks.methods import Tasks
from gateway.relay import rewriting
from gateway.tools.catalogue import Catalogue
from gateway.upstreams import Upstream
from gateway.upstreams.reply import Reply
from gateway.wire import frames, protocol

TOO_LONG = protocol.Rejection(
    code=frames.INVALID_PARAMS, message=f"The params of initialize are limited to {MAX_OPENING} bytes."
)


class Relay:
    """Relays frames and streams of every agent."""

    def __init__(
        self, *, settings: Callable[[], ProxySettings], sessions: Sessions, catalogue: Catalogue,
        held_answers: HeldAnswers, tasks: Tasks, audit: AuditLog, exchange_limits: ExchangeLimits,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._sessions = sessions
        self._catalogue = catalogue
        self._held_answers = held_answers
        self._tasks = tasks
        self._audit = audit
        self._exchange_limits = exchange_limits

    async def stream_or_end(self, exchange: Exchange, upstream: Upstream, session: Session | None) -> Reply:
        """Open the server's stream or resume a broken one (GET), or end a session (DELETE)."""
        if exchange.verb == "GET" and (reply := await self._held_answers.resume(exchange, upstream, session)):
            return reply
        if exchange.verb == "DELETE":
            self._sessions.close(exchange.server, exchange.headers)
        headers = exchange.head.forwarded
        # The rest of a broken stream may contain a tool list as well.
        edits = (
            await self._list_edits(exchange.server, self._settings()) if "last-event-id" in headers else []
        )
        kind = Kind.STREAM if exchange.verb == "GET" else Kind.MESSAGE
        reply = await self._exchange(exchange, kind, partial(upstream.send, exchange.verb, b"", headers))
        with ExitStack() as on_failure:
            on_failure.callback(reply.close)
            edited = self.watch_for_changes(exchange, await rewriting.edit_result(reply, *edits))
            on_failure.pop_all()
        return edited

    async def frame(self, exchange: Exchange, upstream: Upstream, frame: frames.Frame) -> Reply:
        """Relay a frame, unless the gateway drops, refuses or answers it."""
        if not protocol.is_allowed(frame, exchange.headers):
            return self._refuse_unknown(exchange, frame)
        if elicitation.is_response(frame):
            return Reply(status=202)
        if (request_id := protocol.cancelled_id(frame)) is not None:
            self._held_answers.cancel(exchange, request_id)
        if protocol.is_cancellation(frame) and protocol.era(exchange.headers, frame) is protocol.Era.MODERN:
            # Without sessions a server cannot distinguish clients' ids; closing the stream cancels the request.
            return Reply(status=202)
        if not isinstance(frame, frames.Request):
            return await self._send(exchange, upstream, frame, exchange.body)
        if frame.method == "initialize" and len(frame.raw) > MAX_OPENING:
            return self._audit.refuse(exchange, frame.id, TOO_LONG)
        if self._tasks.owns(frame):
            return await self._tasks.answer(exchange, frame)
        return await self._request(exchange, upstream, frame)

    async def _request(self, exchange: Exchange, upstream: Upstream, frame: frames.Request) -> Reply:
        async def send(body: bytes) -> Reply:
            return await self._send(exchange, upstream, frame, body)

        if (subscribed := await self._tasks.subscribe(exchange, frame, send)) is not None:
            return self.watch_for_changes(exchange, subscribed)
        reply = await send(exchange.body)
        with ExitStack() as on_failure:
            on_failure.callback(reply.close)
            if frame.method == "initialize":
                await self._sessions.open(exchange.agent, exchange.server, reply, frame.params)
            edits = await self._edits(exchange, frame)
            edited = self.watch_for_changes(exchange, await rewriting.edit_result(reply, *edits))
            on_failure.pop_all()
        return edited

    async def _send(self, exchange: Exchange, upstream: Upstream, frame: frames.Frame, body: bytes) -> Reply:
        headers = protocol.request_headers(
            protocol.era(exchange.headers, frame), exchange.head.forwarded, frame
        )
        return await self._exchange(exchange, _kind(frame), partial(upstream.send, "POST", body, headers))

    async def _exchange(self, exchange: Exchange, kind: Kind, send: Callable[[], Awaitable[Reply]]) -> Reply:
        return rewriting.filter_reply(await self._exchange_limits.run(exchange.agent.name, kind, send))

    async def _edits(self, exchange: Exchange, frame: frames.Request) -> list[rewriting.Edit]:
        """Return the edits of the response to this request."""
        settings, server = self._settings(), exchange.server
        tasks = settings.holds.tasks
        match frame.method:
            case "tools/list":
                return await self._list_edits(server, settings)
            case "server/discover" if tasks is not TaskOffer.OFF:
                return [rewriting.offer_extension]
            case "initialize" if tasks is TaskOffer.ALL:
                return [rewriting.offer_tasks]
        return []

    async def _list_edits(self, server: str, settings: ProxySettings) -> list[rewriting.Edit]:
        """Return the edits of a tool list: drop hidden and quarantined tools, add notes and the offer of tasks."""
        tasks, catalogue = settings.holds.tasks is TaskOffer.ALL, self._catalogue
        await catalogue.ensure_listed(server)

        def is_hidden(name: str) -> bool:
            known = catalogue.listed_tool(server, name)
            return settings.policy.is_hidden(server, name) or (known is not None and bool(known.defect))

        def needs_approval(name: str) -> bool:
            return self._may_be_held(server, name)

        return [
            rewriting.report_tools(lambda tools: catalogue.check_list(server, tools)),
            rewriting.hide_tools(is_hidden),
            *([rewriting.annotate_tools(needs_approval)] if settings.annotate else []),
            *(
                [rewriting.offer_tasks_in_tools(needs_approval)]
                if tasks and not catalogue.has_tasks(server)
                else []
            ),
        ]

    def _may_be_held(self, server: str, name: str) -> bool:
        """Return whether a call of this tool may need approval, whatever its arguments."""
        tool = self._catalogue.listed_tool(server, name)
        return tool is None or self._settings().policy.may_hold(server, name, tool.classification)

    def watch_for_changes(self, exchange: Exchange, reply: Reply) -> Reply:
        """Return the reply; the tools are listed again if it reports a change."""
        return rewriting.watch_for_changes(reply, lambda: self._catalogue.mark_stale(exchange.server))

    def _refuse_unknown(self, exchange: Exchange, frame: frames.Frame) -> Reply:
        """Refuse an unknown method with an error; drop an unknown notification or response."""
        if not isinstance(frame, frames.Request):
            self._audit.post(exchange, "frame.dropped", method=getattr(frame, "method", "an answer"))
            return Reply(status=202)
        modern = protocol.era(exchange.headers, frame) is protocol.Era.MODERN
        unknown = protocol.Rejection(code=-32601, message="Method not found", status=404 if modern else 200)
        return self._audit.refuse(exchange, frame.id, unknown)


def _kind(frame: frames.Frame) -> Kind:
    if not isinstance(frame, frames.Request):
        return Kind.MESSAGE
    return Kind.STREAM if frame.method == subscriptions.METHOD else Kind.REQUEST
