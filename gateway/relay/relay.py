"""What is no tool call crosses untouched, but for what the gateway itself hides, offers or answers."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

from gateway.call.audit import Record
from gateway.call.exchange_limits import Exchanges, Kind
from gateway.call.hold_settings import TaskOffer
from gateway.call.request import Incoming
from gateway.call.sessions import MAX_OPENING, Session, Sessions
from gateway.call.settings import Setting
from gateway.hold import ladder, subscriptions
from gateway.hold.answering import Holding
from gateway.hold.tasks import Tasks
from gateway.relay import rewriting
from gateway.tools.catalogue import Catalogue
from gateway.upstreams import Reply, Upstream
from gateway.wire import frames, protocol

TOO_LONG = protocol.Rejection(
    code=frames.INVALID_PARAMS, message=f"An initialize may have {MAX_OPENING} bytes at most."
)


class Passing:
    """Relays frames and streams."""

    def __init__(
        self, *, setting: Callable[[], Setting], sessions: Sessions, catalogue: Catalogue, holding: Holding, tasks: Tasks, record: Record,
        exchanges: Exchanges,
    ) -> None:  # fmt: skip
        self._setting = setting
        self._sessions = sessions
        self._catalogue = catalogue
        self._holding = holding
        self._tasks = tasks
        self._record = record
        self._exchanges = exchanges

    async def stream_or_end(self, incoming: Incoming, upstream: Upstream, session: Session | None) -> Reply:
        """Open the server's own stream or take up one that was cut (GET), or end a session (DELETE)."""
        if incoming.verb == "GET" and (reply := await self._holding.resume(incoming, upstream, session)):
            return reply
        if incoming.verb == "DELETE":
            self._sessions.closed(incoming.server, incoming.headers)
        headers = protocol.crossing(incoming.headers, None)
        # The rest of a stream that was cut may hold a list of tools as well.
        edits = await self._listed(incoming.server, self._setting()) if "last-event-id" in headers else []
        kind = Kind.STREAM if incoming.verb == "GET" else Kind.MESSAGE
        reply = await self._exchanged(incoming, kind, partial(upstream.send, incoming.verb, b"", headers))
        with ExitStack() as unless_given:
            unless_given.callback(reply.close)
            given = self.watched(incoming, await rewriting.edited(reply, *edits))
            unless_given.pop_all()
        return given

    async def frame(self, incoming: Incoming, upstream: Upstream, frame: frames.Frame) -> Reply:
        """Relay a frame that is no tool call."""
        if not protocol.may_pass(frame, incoming.headers):
            return self._not_passed(incoming, frame)
        if ladder.answers_link(frame):
            return Reply(status=202)
        if (request_id := protocol.cancelled(frame)) is not None:
            self._holding.cancelled(incoming, request_id)
        if protocol.takes_back(frame) and protocol.era(incoming.headers, frame) is protocol.Era.MODERN:
            # Ids are each client's own there, and a server may take one for another's: hanging up is what cancels.
            return Reply(status=202)
        if not isinstance(frame, frames.Request):
            return await self._sent(incoming, upstream, frame, incoming.body)
        if frame.method == "initialize" and len(frame.raw) > MAX_OPENING:
            return self._record.refuse(incoming, frame.id, TOO_LONG)
        if self._tasks.owns(frame):
            return await self._tasks.answer(incoming, frame)
        return await self._request(incoming, upstream, frame)

    async def _request(self, incoming: Incoming, upstream: Upstream, frame: frames.Request) -> Reply:
        async def send(body: bytes) -> Reply:
            return await self._sent(incoming, upstream, frame, body)

        if (subscribed := await self._tasks.listen(incoming, frame, send)) is not None:
            return self.watched(incoming, subscribed)
        reply = await send(incoming.body)
        with ExitStack() as unless_given:
            unless_given.callback(reply.close)
            if frame.method == "initialize":
                await self._sessions.opened(incoming.agent, incoming.server, reply, frame.params)
            edits = await self._edits(incoming, frame)
            given = self.watched(incoming, await rewriting.edited(reply, *edits))
            unless_given.pop_all()
        return given

    async def _sent(self, incoming: Incoming, upstream: Upstream, frame: frames.Frame, body: bytes) -> Reply:
        headers = protocol.crossing(incoming.headers, frame)
        return await self._exchanged(incoming, _kind(frame), partial(upstream.send, "POST", body, headers))

    async def _exchanged(self, incoming: Incoming, kind: Kind, send: Callable[[], Awaitable[Reply]]) -> Reply:
        return rewriting.checked(await self._exchanges.one(incoming.agent.name, kind, send))

    async def _edits(self, incoming: Incoming, frame: frames.Request) -> list[rewriting.Edit]:
        """Return what is to be edited in the answer to this request."""
        setting, server = self._setting(), incoming.server
        tasks = setting.holds.tasks
        match frame.method:
            case "tools/list":
                return await self._listed(server, setting)
            case "server/discover" if tasks is not TaskOffer.OFF:
                return [rewriting.with_extension]
            case "initialize" if tasks is TaskOffer.ALL:
                return [rewriting.with_tasks]
        return []

    async def _listed(self, server: str, setting: Setting) -> list[rewriting.Edit]:
        """Return how a list of tools is shown: without what is hidden or in quarantine, and with what we offer."""
        tasks, catalogue = setting.holds.tasks is TaskOffer.ALL, self._catalogue
        await catalogue.learn(server)

        def hidden(name: str) -> bool:
            known = catalogue.known(server, name)
            return setting.policy.hidden(server, name) or (known is not None and bool(known.flaw))

        def gated(name: str) -> bool:
            return self._may_be_held(server, name)

        return [
            rewriting.hearing(lambda tools: catalogue.heard(server, tools)),
            rewriting.hiding(hidden),
            *([rewriting.annotating(gated)] if setting.annotate else []),
            *([rewriting.offering_tasks(gated)] if tasks and not catalogue.has_tasks(server) else []),
        ]

    def _may_be_held(self, server: str, name: str) -> bool:
        """Say whether a call of this tool may be held, as far as can be said without its arguments."""
        tool = self._catalogue.known(server, name)
        return tool is None or self._setting().policy.may_hold(server, name, tool.classification)

    def watched(self, incoming: Incoming, reply: Reply) -> Reply:
        """Return the reply, and notice in it that the server's tools have changed."""
        return rewriting.watched(reply, lambda: self._catalogue.outdate(incoming.server))

    def _not_passed(self, incoming: Incoming, frame: frames.Frame) -> Reply:
        """Default deny: an unknown method is answered, an unknown notification or answer is dropped."""
        if not isinstance(frame, frames.Request):
            self._record.post(incoming, "frame.dropped", method=getattr(frame, "method", "an answer"))
            return Reply(status=202)
        modern = protocol.era(incoming.headers, frame) is protocol.Era.MODERN
        unknown = protocol.Rejection(code=-32601, message="Method not found", status=404 if modern else 200)
        return self._record.refuse(incoming, frame.id, unknown)


def _kind(frame: frames.Frame) -> Kind:
    if not isinstance(frame, frames.Request):
        return Kind.MESSAGE
    return Kind.STREAM if frame.method == subscriptions.METHOD else Kind.REQUEST
