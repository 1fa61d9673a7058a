"""Answers the client of a held call: waits for the decision, runs the call once, and sends the result.

`ladder` chooses the next step for a client, `final_frames` builds its answer, `response_stream` writes both.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from approvals.errors import StoreError
from approvals.model import CallId, HeldCall
from approvals.service import ApprovalService
from approvals.signals import Signal, SignalKind
from gateway.call import envelope
from gateway.call.delivered import DeliveredAnswers
from gateway.call.hold_settings import HoldSettings
from gateway.call.request import CallRequest, Exchange
from gateway.call.sessions import Session
from gateway.errors import GatewayError, UnknownSessionError
from gateway.hold import client_wait, elicitation, known_clients, ladder, outbound, response_stream
from gateway.hold.cancellations import Cancellations, PendingWait, RequestKey
from gateway.hold.client_wait import ClientWait
from gateway.hold.final_frames import FinalFrames
from gateway.hold.ladder import Rung
from gateway.hold.outbound import Outbound
from gateway.hold.patience import ClientKey, LearnedWaits
from gateway.hold.response_stream import FinalFrame
from gateway.hold.running import Forwarder
from gateway.upstreams import Upstream
from gateway.upstreams.reply import JSON, LateReply, Reply
from gateway.wire import frames, protocol, sse

#: Follows the error of a store that failed while a client waited: the call may have run by then.
REPEAT_THE_CALL = (
    "It is not known whether this call ran. Repeat it with the same arguments: it runs once at most."
)


class HeldAnswers:
    """Answers every client that waits for a held call."""

    def __init__(
        self,
        *,
        service: ApprovalService,
        forwarder: Forwarder,
        holds: Callable[[], HoldSettings],
        final_frames: FinalFrames,
        objection: Callable[[HeldCall], str | None],
        ensure_listed: Callable[[str], Awaitable[None]],
    ) -> None:
        """*objection* judges an approved call again; *ensure_listed* fetches a server's tools if they are unknown."""
        self._service = service
        self._forwarder = forwarder
        self._holds = holds
        self._final_frames = final_frames
        self._objection = objection
        self._ensure_listed = ensure_listed
        self._waits = Cancellations(service.monotonic)
        self._learned_waits = LearnedWaits()
        self.delivered = DeliveredAnswers()

    # Entry points: a request, a request of our stdio front, and a resumed stream.

    async def answer(self, request: CallRequest, held: HeldCall) -> Reply | LateReply:
        """Answer the request once the call is decided, and keep its client from timing out until then."""
        self._supersede_older(request, held)
        if request.from_our_front:
            return self.answer_front(request, held)
        accepts_events = request.exchange.accepts_events
        client = self._begin_wait(request, held, resumes=request.resumes and accepts_events)
        items = self._items(client)
        first = await anext(items, None)
        if isinstance(first, FinalFrame) or (first is not None and not accepts_events):
            status = first.status if isinstance(first, FinalFrame) else 200
            frame = response_stream.write_frame(first, items)
            return self._reply(client, status, {"Content-Type": JSON}, frame)
        event_id = response_stream.make_event_id(held.id, request.frame.id) if client.resumes else None
        return self._reply(client, 200, sse.HEADERS, response_stream.write_events(first, items, event_id))

    def answer_front(self, request: CallRequest, held: HeldCall) -> Reply:
        """Answer our stdio front: it gets the call's id at once, and repeats the call if the stream breaks."""
        client = self._begin_wait(request, held, resumes=True, silence=0.0)
        headers = {**sse.HEADERS, protocol.HOLD_HEADER: held.id}
        return self._reply(
            client, 200, headers, response_stream.write_events(None, self._items(client), None)
        )

    async def resume(self, exchange: Exchange, upstream: Upstream, session: Session | None) -> Reply | None:
        """Resume a broken stream of a held call (Last-Event-ID); None if the event id is not ours."""
        parsed = response_stream.parse_event_id(exchange.headers.get("last-event-id", ""))
        if parsed is None:
            return None
        call_id, request_id = parsed
        held = await self._service.store.get(call_id)
        if held is None or (held.call.agent, held.call.server) != (exchange.agent.name, exchange.server):
            raise UnknownSessionError
        frame = envelope.rebuild_frame(held.call, request_id)
        request = CallRequest.read(exchange, upstream, frame, session)
        client = self._begin_wait(request, held, resumes=True, silence=0.0)
        event_id = response_stream.make_event_id(held.id, request_id)
        return self._reply(
            client, 200, sse.HEADERS, response_stream.write_events(None, self._items(client), event_id)
        )

    def _reply(
        self, client: ClientWait, status: int, headers: Mapping[str, str], chunks: AsyncIterator[bytes]
    ) -> Reply:
        delivered = partial(self._record_delivery, client)
        return Reply(status=status, headers=headers, chunks=chunks, delivered=delivered)

    # Waiting.

    def _begin_wait(
        self, request: CallRequest, held: HeldCall, *, resumes: bool, silence: float | None = None
    ) -> ClientWait:
        known, now = self._client_hold(request), self._service.monotonic()
        patience = (
            self._learned_waits.get(_client_key(request), known.wait, now) if known.learns else known.wait
        )
        return ClientWait(
            request=request,
            held=held,
            wait=PendingWait(call_id=held.id, client=request.client, since=now),
            resumes=resumes,
            give_up_at=now + patience,
            silence=client_wait.quiet_time(request) if silence is None else silence,
            # A client whose wait was learned may apply one timeout to all its rounds.
            rounds_left=client_wait.rounds_left(request) if patience == known.wait else 0,
        )

    def _client_hold(self, request: CallRequest) -> known_clients.ClientHold:
        settings = self._holds()
        return known_clients.client_hold(request.client, settings.hold_for, settings.clients)

    def _supersede_older(self, request: CallRequest, held: HeldCall) -> None:
        """End the same client's older requests for this call with WAITING; learn from their age how long it waits."""
        client_key, now, known = _client_key(request), self._service.monotonic(), self._client_hold(request)
        gap = self._waits.supersede(held.id, request.client, now)
        if gap is not None:
            self._service.wakeups.wake(held.id)
        if gap is not None and known.learns:
            self._learned_waits.record_abandoned(client_key, gap, now)
        elif known.learns and not self._waits.open_waits(held.id, request.client):
            self._learned_waits.record_repeat(client_key, held.id, known.wait, now)

    async def _items(self, client: ClientWait) -> response_stream.StreamItems:
        """Yield events, then the final frame; no final frame if the stream continues at the next gateway."""
        request, held = client.request, client.held
        key = _request_key(request.exchange, request.frame.id)
        with self._service.attend(held.id), self._waits.track(key, client.wait):
            if self._waits.supersede_oldest(held.id):
                self._service.wakeups.wake(held.id)
            try:
                async with aclosing(self._events(client)) as events:
                    async for event in events:
                        yield event
                if self._continues_at_next_gateway(client):
                    await self._waits.linger()
                    return
                yield self._final_frames.build(client.rung, request, client.held)
                client.answered = True
            except (asyncio.CancelledError, GeneratorExit):
                self._handle_client_left(held)
                raise
            except StoreError as error:
                message = f"{error} {REPEAT_THE_CALL}"
                yield FinalFrame(frames.build_error(request.frame.id, GatewayError.code, message))
        if client.wait.cancelled:
            self._handle_client_left(held)

    async def _events(self, client: ClientWait) -> AsyncGenerator[bytes, None]:
        """Yield the link, signs of life and the server's events, until the ladder ends the wait."""
        shows_link = client.request.resumes and self._final_frames.shows_link(client.request)
        if shows_link:
            yield elicitation.request_event(client.held, self._holds().link)
        while (step := self._next_step(client)).rung in {Rung.WAIT, Rung.RUN}:
            if step.rung is Rung.RUN:
                approved = outbound.as_approved(client.request, client.held)
                async for event in self.run(client.held, approved, client.wait):
                    yield event
                if await self._has_changed(client):
                    continue
                # The claim failed, for example on a full disk; it is retried a beat later.
                client.claim_failed = True
            sign, seconds = client.beat(step.seconds)
            if sign is not None:
                yield sign
            client.held = await self._service.wait_for_change(client.held, seconds)
        client.rung = step.rung
        if shows_link and step.rung is Rung.ANSWER:
            yield elicitation.complete_event(client.held)

    def _next_step(self, client: ClientWait) -> ladder.Step:
        return client.next_step(self._service.monotonic(), closing=self._waits.closed)

    async def _has_changed(self, client: ClientWait) -> bool:
        """Return whether the stored call is newer than the client's version, or the wait is over; then update it."""
        newest = await self._service.get(client.held.id)
        changed = newest.version > client.held.version or client.wait.is_over
        if changed:
            client.held = newest
        return changed

    def _continues_at_next_gateway(self, client: ClientWait) -> bool:
        """Return whether this gateway stops and the client will resume its stream at the next one."""
        stopped = self._waits.closed and client.rung is Rung.LATER
        return stopped and client.resumes and not client.wait.is_over

    # Running.

    async def run(
        self, held: HeldCall, approved: Outbound, wait: PendingWait | None = None
    ) -> AsyncIterator[bytes]:
        """Run the call once, and yield the server's events meanwhile, until *wait* is over."""
        await self._ensure_listed(held.call.server)
        if wait is not None and wait.is_over:
            return
        within = self._holds().answer_within.get(held.call.server)
        events = self._forwarder.start(held, approved, self._objection, within=within)
        if wait is not None:
            wait.events = events
        while (event := await events.get()) is not None:
            yield event

    # After the last byte.

    async def _record_delivery(self, client: ClientWait) -> None:
        """Record that the answer was written, unless the client no longer read it: then it repeats the call."""
        if not client.answered or client.wait.is_over:
            return
        if client.rung is Rung.ANSWER:
            key = client.request.session_key
            if client.held.outcome is not None:
                self.delivered.record(key, client.held.id)
            with self.delivered.storing(key, client.held.id):
                await self.record_collected(client.held.id, key.session)
        elif not self._waits.closed:
            self._learned_waits.record_waiting(
                _client_key(client.request), client.held.id, self._service.monotonic()
            )

    async def record_collected(self, call_id: CallId, session: str = "") -> None:
        """Record that the agent has its answer. If the store fails, a repeat of the call gets the answer again."""
        with suppress(StoreError):
            await self._forwarder.record_collected(call_id, session)

    # Ending waits.

    def cancel(self, exchange: Exchange, request_id: frames.Id) -> None:
        """End the wait of the client that cancels this request, at whichever replica it waits."""
        key = _request_key(exchange, request_id)
        self._end_waits(key)
        origin = self._service.replica.id
        self._service.store.announce(Signal(SignalKind.CANCEL, key.encode(), origin))

    def act_on_cancel(self, signal: Signal) -> None:
        """End the wait of a client that cancelled its request at another replica."""
        # A signal of this replica may arrive late, when a newer request already uses the same id.
        if signal.origin == self._service.replica.id:
            return
        with suppress(ValueError):  # a newer replica may encode its keys differently
            self._end_waits(RequestKey.decode(signal.subject))

    def _end_waits(self, key: RequestKey) -> None:
        for call_id in self._waits.cancel(key):
            self._service.wakeups.wake(call_id)

    def _handle_client_left(self, held: HeldCall) -> None:
        """Keep the call when its client hangs up or cancels, unless the config says `on_disconnect: cancel`."""
        if self._holds().cancel_on_disconnect:
            self._forwarder.cancel(held)

    def close(self) -> None:
        """End every wait: a client gets WAITING, or its stream lingers until shutdown ends. Held calls stay."""
        self._waits.closed = True
        self._service.wakeups.wake_all()

    @property
    def lingering(self) -> frozenset[asyncio.Task[Any] | None]:
        """The tasks of the clients that will resume their streams at the next gateway."""
        return frozenset(self._waits.lingering)

    def end_lingering(self) -> None:
        """End the lingering streams; their clients reconnect."""
        self._waits.end_lingering()


def _client_key(request: CallRequest) -> ClientKey:
    return ClientKey(request.exchange.agent.name, request.client)


def _request_key(exchange: Exchange, request_id: frames.Id) -> RequestKey:
    session = exchange.headers.get(protocol.SESSION_HEADER, "")
    return RequestKey(agent=exchange.agent.name, server=exchange.server, session=session, id=request_id)
