"""What is no tool call crosses untouched, but for what the gateway itself hides, offers or answers."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

from gateway import frames, hold, protocol, relay
from gateway.catalogue import Catalogue
from gateway.exchanges import Exchanges, Kind
from gateway.incoming import Incoming
from gateway.ladder import listening
from gateway.ladder.holding import Holding
from gateway.ladder.tasks import Tasks
from gateway.record import Record
from gateway.sessions import MAX_OPENING, Session, Sessions
from gateway.setting import Setting
from gateway.upstreams import Reply, Upstream

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
            given = self.watched(incoming, await relay.edited(reply, *edits))
            unless_given.pop_all()
        return given

    async def frame(self, incoming: Incoming, upstream: Upstream, frame: frames.Frame) -> Reply:
        """Relay a frame that is no tool call."""
        if not protocol.may_pass(frame, incoming.headers):
            return self._not_passed(incoming, frame)
        if hold.answers_link(frame):
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
            given = self.watched(incoming, await relay.edited(reply, *edits))
            unless_given.pop_all()
        return given

    async def _sent(self, incoming: Incoming, upstream: Upstream, frame: frames.Frame, body: bytes) -> Reply:
        headers = protocol.crossing(incoming.headers, frame)
        return await self._exchanged(incoming, _kind(frame), partial(upstream.send, "POST", body, headers))

    async def _exchanged(self, incoming: Incoming, kind: Kind, send: Callable[[], Awaitable[Reply]]) -> Reply:
        return relay.checked(await self._exchanges.one(incoming.agent.name, kind, send))

    async def _edits(self, incoming: Incoming, frame: frames.Request) -> list[relay.Edit]:
        """Return what is to be edited in the answer to this request."""
        setting, server = self._setting(), incoming.server
        tasks = setting.holds.tasks
        match frame.method:
            case "tools/list":
                return await self._listed(server, setting)
            case "server/discover" if tasks is not hold.Tasks.OFF:
                return [relay.with_extension]
            case "initialize" if tasks is hold.Tasks.ALL:
                return [relay.with_tasks]
        return []

    async def _listed(self, server: str, setting: Setting) -> list[relay.Edit]:
        """Return how a list of tools is shown: without what is hidden or in quarantine, and with what we offer."""
        tasks, catalogue = setting.holds.tasks is hold.Tasks.ALL, self._catalogue
        await catalogue.learn(server)

        def hidden(name: str) -> bool:
            known = catalogue.known(server, name)
            return setting.policy.hidden(server, name) or (known is not None and bool(known.flaw))

        def gated(name: str) -> bool:
            return self._may_be_held(server, name)

        return [
            relay.hearing(lambda tools: catalogue.heard(server, tools)),
            relay.hiding(hidden),
            *([relay.annotating(gated)] if setting.annotate else []),
            *([relay.offering_tasks(gated)] if tasks and not catalogue.has_tasks(server) else []),
        ]

    def _may_be_held(self, server: str, name: str) -> bool:
        """Say whether a call of this tool may be held, as far as can be said without its arguments."""
        tool = self._catalogue.known(server, name)
        return tool is None or self._setting().policy.may_hold(server, name, tool.classification)

    def watched(self, incoming: Incoming, reply: Reply) -> Reply:
        """Return the reply, and notice in it that the server's tools have changed."""
        return relay.watched(reply, lambda: self._catalogue.outdate(incoming.server))

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
    return Kind.STREAM if frame.method == listening.METHOD else Kind.REQUEST
