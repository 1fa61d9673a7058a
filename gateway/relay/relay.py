"""What is no tool call crosses untouched, but for what the gateway itself hides, offers or answers."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

from gateway.call.audit import AuditLog
from gateway.call.exchange_limits import ExchangeLimits, Kind
from gateway.call.hold_settings import TaskOffer
from gateway.call.request import Exchange
from gateway.call.sessions import MAX_OPENING, Session, Sessions
from gateway.call.settings import ProxySettings
from gateway.hold import elicitation, subscriptions
from gateway.hold.answering import HeldAnswers
from gateway.hold.tasks import Tasks
from gateway.relay import rewriting
from gateway.tools.catalogue import Catalogue
from gateway.upstreams import Upstream
from gateway.upstreams.reply import Reply
from gateway.wire import frames, protocol

TOO_LONG = protocol.Rejection(
    code=frames.INVALID_PARAMS, message=f"An initialize may have {MAX_OPENING} bytes at most."
)


class Relay:
    """Relays frames and streams."""

    def __init__(
        self, *, settings: Callable[[], ProxySettings], sessions: Sessions, catalogue: Catalogue, held_answers: HeldAnswers, tasks: Tasks, audit: AuditLog,
        exchange_limits: ExchangeLimits,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._sessions = sessions
        self._catalogue = catalogue
        self._held_answers = held_answers
        self._tasks = tasks
        self._audit = audit
        self._exchange_limits = exchange_limits

    async def stream_or_end(self, exchange: Exchange, upstream: Upstream, session: Session | None) -> Reply:
        """Open the server's own stream or take up one that was cut (GET), or end a session (DELETE)."""
        if exchange.verb == "GET" and (reply := await self._held_answers.resume(exchange, upstream, session)):
            return reply
        if exchange.verb == "DELETE":
            self._sessions.closed(exchange.server, exchange.headers)
        headers = protocol.request_headers(exchange.headers, None)
        # The rest of a stream that was cut may hold a list of tools as well.
        edits = await self._listed(exchange.server, self._settings()) if "last-event-id" in headers else []
        kind = Kind.STREAM if exchange.verb == "GET" else Kind.MESSAGE
        reply = await self._exchanged(exchange, kind, partial(upstream.send, exchange.verb, b"", headers))
        with ExitStack() as unless_given:
            unless_given.callback(reply.close)
            given = self.watched(exchange, await rewriting.edited(reply, *edits))
            unless_given.pop_all()
        return given

    async def frame(self, exchange: Exchange, upstream: Upstream, frame: frames.Frame) -> Reply:
        """Relay a frame that is no tool call."""
        if not protocol.is_allowed(frame, exchange.headers):
            return self._not_passed(exchange, frame)
        if elicitation.is_response(frame):
            return Reply(status=202)
        if (request_id := protocol.cancelled_id(frame)) is not None:
            self._held_answers.cancel(exchange, request_id)
        if protocol.is_cancellation(frame) and protocol.era(exchange.headers, frame) is protocol.Era.MODERN:
            # Ids are each client's own there, and a server may take one for another's: hanging up is what cancels.
            return Reply(status=202)
        if not isinstance(frame, frames.Request):
            return await self._sent(exchange, upstream, frame, exchange.body)
        if frame.method == "initialize" and len(frame.raw) > MAX_OPENING:
            return self._audit.refuse(exchange, frame.id, TOO_LONG)
        if self._tasks.owns(frame):
            return await self._tasks.answer(exchange, frame)
        return await self._request(exchange, upstream, frame)

    async def _request(self, exchange: Exchange, upstream: Upstream, frame: frames.Request) -> Reply:
        async def send(body: bytes) -> Reply:
            return await self._sent(exchange, upstream, frame, body)

        if (subscribed := await self._tasks.listen(exchange, frame, send)) is not None:
            return self.watched(exchange, subscribed)
        reply = await send(exchange.body)
        with ExitStack() as unless_given:
            unless_given.callback(reply.close)
            if frame.method == "initialize":
                await self._sessions.opened(exchange.agent, exchange.server, reply, frame.params)
            edits = await self._edits(exchange, frame)
            given = self.watched(exchange, await rewriting.edited(reply, *edits))
            unless_given.pop_all()
        return given

    async def _sent(self, exchange: Exchange, upstream: Upstream, frame: frames.Frame, body: bytes) -> Reply:
        headers = protocol.request_headers(exchange.headers, frame)
        return await self._exchanged(exchange, _kind(frame), partial(upstream.send, "POST", body, headers))

    async def _exchanged(self, exchange: Exchange, kind: Kind, send: Callable[[], Awaitable[Reply]]) -> Reply:
        return rewriting.checked(await self._exchange_limits.one(exchange.agent.name, kind, send))

    async def _edits(self, exchange: Exchange, frame: frames.Request) -> list[rewriting.Edit]:
        """Return what is to be edited in the answer to this request."""
        settings, server = self._settings(), exchange.server
        tasks = settings.holds.tasks
        match frame.method:
            case "tools/list":
                return await self._listed(server, settings)
            case "server/discover" if tasks is not TaskOffer.OFF:
                return [rewriting.with_extension]
            case "initialize" if tasks is TaskOffer.ALL:
                return [rewriting.with_tasks]
        return []

    async def _listed(self, server: str, settings: ProxySettings) -> list[rewriting.Edit]:
        """Return how a list of tools is shown: without what is hidden or in quarantine, and with what we offer."""
        tasks, catalogue = settings.holds.tasks is TaskOffer.ALL, self._catalogue
        await catalogue.ensure_listed(server)

        def hidden(name: str) -> bool:
            known = catalogue.listed_tool(server, name)
            return settings.policy.is_hidden(server, name) or (known is not None and bool(known.defect))

        def gated(name: str) -> bool:
            return self._may_be_held(server, name)

        return [
            rewriting.hearing(lambda tools: catalogue.check_list(server, tools)),
            rewriting.hiding(hidden),
            *([rewriting.annotating(gated)] if settings.annotate else []),
            *([rewriting.offering_tasks(gated)] if tasks and not catalogue.has_tasks(server) else []),
        ]

    def _may_be_held(self, server: str, name: str) -> bool:
        """Say whether a call of this tool may be held, as far as can be said without its arguments."""
        tool = self._catalogue.listed_tool(server, name)
        return tool is None or self._settings().policy.may_hold(server, name, tool.classification)

    def watched(self, exchange: Exchange, reply: Reply) -> Reply:
        """Return the reply, and notice in it that the server's tools have changed."""
        return rewriting.watched(reply, lambda: self._catalogue.mark_stale(exchange.server))

    def _not_passed(self, exchange: Exchange, frame: frames.Frame) -> Reply:
        """Default deny: an unknown method is answered, an unknown notification or answer is dropped."""
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
