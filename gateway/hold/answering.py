"""Serves the client of a held call: waits for the decision, runs the call once, and sends the answer.

What comes next is the ladder's decision (`hold`), how it looks on the wire is that of `writing`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec

from approvals import digest
from approvals.errors import StoreError
from approvals.model import CallId, HeldCall
from approvals.service import ApprovalService
from gateway.call import envelope
from gateway.call.delivered import DeliveredAnswers
from gateway.call.hold_settings import HoldSettings
from gateway.call.request import CallRequest, Exchange
from gateway.call.sessions import Session
from gateway.errors import GatewayError, UnknownHoldError, UnknownSessionError
from gateway.hold import elicitation, known_clients, ladder, messages, request_state, response_stream
from gateway.hold.cancellations import Cancellations, PendingWait, RequestKey
from gateway.hold.ladder import Rung
from gateway.hold.outbound import Outbound, as_approved, as_sent
from gateway.hold.patience import Patience, Who
from gateway.hold.request_state import Seals, Ticket
from gateway.hold.running import Forwarder
from gateway.upstreams import Upstream
from gateway.upstreams.reply import JSON, Reply
from gateway.wire import frames, protocol, sse

#: What a client is told when the store fails while it waits: its call may have run by then.
ASK_AGAIN = "It is not known whether this call ran; ask again with the same arguments: it runs once at most."


@dataclass(slots=True, kw_only=True)
class ClientWait:
    """A client that waits: the call as it knows it, and for how long it bears an open connection, and silence."""

    request: CallRequest
    held: HeldCall
    wait: PendingWait
    #: Whether the client takes up its stream when that is cut.
    resumes: bool
    give_up_at: float
    #: Seconds for which it may yet be sent nothing.
    silence: float
    #: How often it may yet be asked to come again by itself.
    rounds_left: int
    #: How it is answered in the end.
    rung: Rung = Rung.LATER
    #: Whether the last attempt to run the call failed before its claim.
    tried: bool = False
    #: Whether its answer was taken from us to be written.
    told: bool = False
    _beats: int = 0

    def step(self, now: float, *, over: bool) -> ladder.Step:
        """Return what to do for it next; when all waiting is *over*, it is told to ask again."""
        return ladder.next_step(
            self.held, now, self.give_up_at,
            rounds_left=self.rounds_left, cancelled=self.wait.over or over, tried=self.tried,
        )  # fmt: skip

    def beat(self, seconds: float) -> tuple[bytes | None, float]:
        """Return the next sign of life, None while it may be silent, and for how many seconds to wait after it."""
        if self.silence:
            seconds, self.silence = min(self.silence, seconds), 0.0
            return None, seconds
        self._beats += 1
        return ladder.sign_of_life(self.held, self._beats - 1, self.request.frame.progress_token), seconds


class HeldAnswers:
    """Every client that waits for a held call."""

    def __init__(
        self,
        *,
        service: ApprovalService,
        forwarder: Forwarder,
        seals: Callable[[], Seals],
        new_id: Callable[[], CallId],
        objection: Callable[[HeldCall], str | None],
        learn: Callable[[str], Awaitable[None]],
        structured: Callable[[str, str], bool],
    ) -> None:
        """*structured* says whether the results of a server's tool have a schema."""
        self.holds = HoldSettings(clients={})
        self._service = service
        self._forwarder = forwarder
        self._seals = seals
        self._new_id = new_id
        self._objection = objection
        self._learn = learn
        self._structured = structured
        self._waits = Cancellations(service.monotonic)
        self._patience = Patience()
        self.given = DeliveredAnswers()

    async def open(self, request: CallRequest, held: HeldCall) -> Reply:
        """Answer the client when the call is decided, and keep it from giving up until then."""
        self._came(request, held)
        if request.from_our_front:
            return self.to_front(request, held)
        resumes = request.resumes and request.exchange.accepts_events
        client = self._waiting(request, held, resumes=resumes)
        items = self._until_told(client)
        first = await anext(items, None)
        if isinstance(first, response_stream.FinalFrame) or (
            first is not None and not request.exchange.accepts_events
        ):
            status = first.status if isinstance(first, response_stream.FinalFrame) else 200
            return self._reply(client, status, {"Content-Type": JSON}, response_stream.answer(first, items))
        handle = response_stream.handle_of(held.id, request.frame.id) if resumes else None
        return self._reply(client, 200, sse.HEADERS, response_stream.stream(first, items, handle))

    def _reply(
        self, client: ClientWait, status: int, headers: Mapping[str, str], chunks: AsyncIterator[bytes]
    ) -> Reply:
        return Reply(
            status=status, headers=headers, chunks=chunks, delivered=partial(self._delivered, client)
        )

    async def resume(self, exchange: Exchange, upstream: Upstream, session: Session | None) -> Reply | None:
        """Take up a stream of ours that was cut; None when the event that the client saw last is not ours."""
        seen = response_stream.call_of(exchange.headers.get("last-event-id", ""))
        if seen is None:
            return None
        held = await self._service.store.get(seen[0])
        if held is None or (held.call.agent, held.call.server) != (exchange.agent.name, exchange.server):
            raise UnknownSessionError
        frame = envelope.frame_of(held.call, seen[1])
        request = CallRequest.read(exchange, upstream, frame, session)
        client = self._waiting(request, held, resumes=True, quiet=0.0)
        handle = response_stream.handle_of(held.id, seen[1])
        return self._reply(
            client, 200, sse.HEADERS, response_stream.stream(None, self._until_told(client), handle)
        )

    def to_front(self, request: CallRequest, held: HeldCall) -> Reply:
        """Answer a front of our own: it gets the id at once, and asks for the call again when the stream ends without an answer."""
        client = self._waiting(request, held, resumes=True, quiet=0.0)
        headers = {**sse.HEADERS, protocol.HOLD_HEADER: held.id}
        return self._reply(client, 200, headers, response_stream.stream(None, self._until_told(client), None))

    async def named(self, request: CallRequest) -> HeldCall | None:
        """Return the held call that a front asks for again by its id; None when it names none. Raises `UnknownHoldError`."""
        name = request.exchange.headers.get(protocol.HOLD_HEADER)
        if name is None or not request.from_our_front:
            return None
        held = await self._service.store.get(CallId(name))
        if held is None or not _of_its_agent(request, held) or not _same_call(request, held):
            raise UnknownHoldError
        return held

    # Rounds.

    def ticket(self, request: CallRequest) -> Ticket | None:
        """Return what the sealed state of this request says, if it brings one; raises `ForgedError`."""
        state = request_state.state_of(request.frame)
        return None if state is None else self._seals().open(state)

    async def earlier(self, request: CallRequest, ticket: Ticket) -> HeldCall | None:
        """Return the held call that a ticket names, when this is the same call; with other arguments it is a new one."""
        held = await self._service.get(CallId(ticket.call))
        if not _of_its_agent(request, held):
            raise request_state.ForgedError
        return held if _same_call(request, held) else None

    async def again(self, request: CallRequest, held: HeldCall, ticket: Ticket) -> Reply:
        """Go on with a call whose client came again: it waits on, or it brings what its server asked for."""
        if not ticket.asked:
            return await self.open(replace(without_state(request), round=ticket.round), held)
        state = None if ticket.state is None else msgspec.json.encode(ticket.state)
        request = replace(request, frame=envelope.with_rest(request.frame, {"requestState": state}))
        return await self.open(request, await self.follow(held, as_sent(request)))

    async def follow(self, held: HeldCall, outbound: Outbound, *, task: bool = False) -> HeldCall:
        """Return the call that continues *held*, which was approved, with the answers that *asked* brings."""
        frame = envelope.with_own_meta(outbound.frame, held.call)
        call = msgspec.structs.replace(
            held.call,
            extra_params=envelope.beside(frame),
            envelope=envelope.packed(frame, outbound.headers, outbound.opening),
        )
        child = HeldCall(
            id=self._new_id(),
            call=call,
            terms=held.terms,
            classification=held.classification,
            rule=held.rule,
            reason=held.reason,
            policy_revision=held.policy_revision,
            definition=held.definition,
            identity=held.identity,
            address=held.address,
            key=digest.key(call, envelope.more(frame)),
            digest=held.digest,
            created_at=self._service.clock(),
            expires_at=0.0,
            task=task,
        )
        return await self._service.continue_call(held.id, child)

    # Waiting.

    async def _until_told(self, client: ClientWait) -> response_stream.Items:
        """Wait, run and tell, as the ladder says; ends with the answer, or without one when the gateway stops."""
        request, held = client.request, client.held
        named = _named(request.exchange, request.frame.id)
        with self._service.attend(held.id), self._waits.waiting(named, client.wait):
            if self._waits.crowded(held.id):
                self._service.wakeups.wake(held.id)
            try:
                async with aclosing(self._meanwhile(client)) as events:
                    async for event in events:
                        yield event
                if self._goes_on_elsewhere(client):
                    await self._waits.park()
                    return
                yield self._told(client.rung, request, client.held)
                client.told = True
            except (asyncio.CancelledError, GeneratorExit):
                self._left(held)
                raise
            except StoreError as error:
                yield response_stream.FinalFrame(
                    frames.error(request.frame.id, GatewayError.code, f"{error} {ASK_AGAIN}")
                )
        if client.wait.cancelled:
            self._left(held)

    def _goes_on_elsewhere(self, client: ClientWait) -> bool:
        """Say whether the gateway stops, and the client will take up its stream at the next one."""
        stopped = self._waits.over and client.rung is Rung.LATER
        return stopped and client.resumes and not client.wait.over

    async def _delivered(self, client: ClientWait) -> None:
        """Note that the last byte was written, unless the client no longer listened: then it collects by asking again."""
        if not client.told or client.wait.over:
            return
        if client.rung is Rung.TELL:
            place = client.request.session_key
            if client.held.outcome is not None:
                self.given.give(place, client.held.id)
            await self.collected(client.held.id, place.session)
        elif not self._waits.over:
            self._patience.told(_who(client.request), client.held.id, self._service.monotonic())

    async def collected(self, call_id: CallId, session: str = "") -> None:
        """Note that the agent has its answer. Where that cannot be noted, the call asked again is answered again."""
        with suppress(StoreError):
            await self._forwarder.collected(call_id, session)

    def _waiting(
        self, request: CallRequest, held: HeldCall, *, resumes: bool, quiet: float | None = None
    ) -> ClientWait:
        known, now = self._client(request), self._service.monotonic()
        patience = self._patience.wait(_who(request), known.wait, now) if known.learns else known.wait
        by_itself = ladder.QUIET if request.frame.progress_token is None else 0.0
        return ClientWait(
            request=request,
            held=held,
            wait=PendingWait(call_id=held.id, client=request.client, since=now),
            resumes=resumes,
            give_up_at=now + patience,
            silence=by_itself if quiet is None else quiet,
            # The timer of a client that gave up may count all its rounds.
            rounds_left=_rounds_left(request) if patience == known.wait else 0,
        )

    def _client(self, request: CallRequest) -> known_clients.ClientHold:
        return known_clients.client_hold(request.client, self.holds.hold_for, self.holds.clients)

    def _came(self, request: CallRequest, held: HeldCall) -> None:
        """Answer the older requests of the same client for this call with WAITING, and learn from their age."""
        who, now, known = _who(request), self._service.monotonic(), self._client(request)
        gap = self._waits.supersede(held.id, request.client, now)
        if gap is not None:
            self._service.wakeups.wake(held.id)
        if gap is not None and known.learns:
            self._patience.gave_up(who, gap, now)
        elif known.learns and not self._waits.of(held.id, request.client):
            self._patience.came_again(who, held.id, known.wait, now)

    async def _meanwhile(self, client: "ClientWait") -> AsyncGenerator[bytes, None]:
        """Yield what there is to show until the client is to be told: a link, signs of life, what the server says."""
        request, shows = client.request, client.request.resumes and self._shows_link(client.request)
        if shows:
            yield elicitation.request_event(client.held, self.holds.link)
        while (step := client.step(self._service.monotonic(), over=self._waits.over)).rung in (
            Rung.WAIT,
            Rung.RUN,
        ):
            if step.rung is Rung.RUN:
                async for event in self.run(client.held, as_approved(request, client.held), client.wait):
                    yield event
                now = await self._service.get(client.held.id)
                if now.version > client.held.version or client.wait.over:
                    client.held = now
                    continue
                # It could not be claimed, as when the disk is full: that is tried again, a beat later.
                client.tried = True
            sign, seconds = client.beat(step.seconds)
            if sign is not None:
                yield sign
            client.held = await self._service.wait_for_change(client.held, seconds)
        client.rung = step.rung
        if shows and step.rung is Rung.TELL:
            yield elicitation.complete_event(client.held)

    def cancelled(self, exchange: Exchange, request_id: frames.Id) -> None:
        """Let the client that takes this request back wait no longer."""
        for call_id in self._waits.cancel(_named(exchange, request_id)):
            self._service.wakeups.wake(call_id)

    def close(self) -> None:
        """End every wait: clients are told to ask again, or their streams are parked. The held calls stay."""
        self._waits.over = True
        self._service.wakeups.wake_all()

    @property
    def parked(self) -> frozenset[asyncio.Task[Any] | None]:
        """The tasks of the clients that will take up their stream at the next gateway."""
        return frozenset(self._waits.parked)

    def cut(self) -> None:
        """End the streams of parked clients, which then come back."""
        self._waits.cut()

    def _left(self, held: HeldCall) -> None:
        """A client that hangs up or cancels is tired, and the call stays; unless the config takes it for a no."""
        if self.holds.cancel_on_disconnect:
            self._forwarder.cancel(held)

    async def run(
        self, held: HeldCall, outbound: Outbound, wait: PendingWait | None = None
    ) -> AsyncIterator[bytes]:
        """Let the call run once, and show what the server says meanwhile, until *wait* is over."""
        await self._learn(held.call.server)
        if wait is not None and wait.over:
            return
        within = self.holds.answer_within.get(held.call.server)
        shown = self._forwarder.start(held, outbound, self._objection, within=within)
        if wait is not None:
            wait.shown = shown
        while (event := await shown.get()) is not None:
            yield event

    # Telling.

    def _told(self, rung: Rung, request: CallRequest, held: HeldCall) -> response_stream.FinalFrame:
        if rung is Rung.ROUND:
            return response_stream.FinalFrame(frames.result(request.frame.id, self._round(request, held)))
        if held.outcome is None or rung is Rung.LATER:
            return response_stream.FinalFrame(
                frames.result(request.frame.id, messages.told(held, as_result=self._as_result(request)))
            )
        outcome = held.outcome
        if (
            question := request_state.question(outcome.body)
        ) is not None and request.era is protocol.Era.MODERN:
            return response_stream.FinalFrame(frames.result(request.frame.id, self._sealed(held, question)))
        outcome = messages.repeated(held, outcome) if held.repeated else outcome
        return response_stream.FinalFrame(
            frames.answer(request.frame.id, outcome), status=protocol.http_status(request.era, outcome)
        )

    def _as_result(self, request: CallRequest) -> bool:
        """Say whether WAITING is no error to this client. A result of a tool that has a schema would have to fit it."""
        return self._client(request).as_result and not self._structured(
            request.exchange.server, request.frame.name
        )

    def _round(self, request: CallRequest, held: HeldCall) -> Mapping[str, Any]:
        """Ask the client to come again at once, and show a requester that may see it where people decide."""
        state = self._seals().seal(Ticket(call=held.id, round=request.round + 1))
        asks = {"inputRequests": {request_state.QUESTION: elicitation.url_request(held, self.holds.link)}}
        link = asks if self._shows_link(request) else {}
        return {"resultType": "input_required", "requestState": state, **link}

    def _shows_link(self, request: CallRequest) -> bool:
        """Say whether the requester is to be shown where people decide, and its client can."""
        return bool(self.holds.link) and protocol.supports_url_elicitation(request.capabilities)

    def _sealed(self, held: HeldCall, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put our state around the server's, so that its answers come under the same approval."""
        ticket = Ticket(call=held.id, asked=True, state=question.get("requestState"))
        return {**question, "requestState": self._seals().seal(ticket)}


def _who(request: CallRequest) -> Who:
    return Who(request.exchange.agent.name, request.client)


def _rounds_left(request: CallRequest) -> int:
    """Return how many rounds are left to a request."""
    return ladder.LAST_ROUND - request.round if request.era is protocol.Era.MODERN else 0


def _named(exchange: Exchange, request_id: frames.Id) -> RequestKey:
    session = exchange.headers.get(protocol.SESSION_HEADER, "")
    return RequestKey(agent=exchange.agent.name, server=exchange.server, session=session, id=request_id)


def _of_its_agent(request: CallRequest, held: HeldCall) -> bool:
    """Say whether this agent asked for a held call, of this server."""
    return (held.call.agent, held.call.server) == (request.exchange.agent.name, request.exchange.server)


def _same_call(request: CallRequest, held: HeldCall) -> bool:
    """Say whether a held call is of the same tool, with the same arguments."""
    given = digest.canonical(request.frame.arguments)
    return held.call.tool == request.frame.name and digest.canonical(held.call.arguments) == given


def without_state(request: CallRequest) -> CallRequest:
    """Return the call without what it brings from an earlier round of ours."""
    return replace(
        request, frame=envelope.with_rest(request.frame, {"requestState": None, "inputResponses": None})
    )
