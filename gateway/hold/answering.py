"""Answers the client of a held call: waits for the decision, runs the call once, and sends the result.

`held_answer` is the answer to one client: `ladder` chooses its next step, `final_frames` builds its end.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
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
from gateway.errors import UnknownSessionError
from gateway.hold import client_wait, elicitation, known_clients, response_stream
from gateway.hold.cancellations import Cancellations, PendingWait, RequestKey
from gateway.hold.client_wait import ClientWait
from gateway.hold.event_buffer import EventBuffer
from gateway.hold.final_frames import FinalFrames
from gateway.hold.held_answer import HeldAnswer
from gateway.hold.hold_context import HoldContext
from gateway.hold.ladder import Rung
from gateway.hold.outbound import Outbound
from gateway.hold.patience import ClientKey, LearnedWaits
from gateway.hold.running import Forwarder
from gateway.hold.timer_wheel import TimerWheel
from gateway.hold.version_checks import VersionChecks
from gateway.hold.waiting_request import WaitingRequest, request_key
from gateway.upstreams import Upstream
from gateway.upstreams.reply import LateReply, Reply
from gateway.wire import frames, protocol


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
        self._context = HoldContext(
            service=service, waits=self._waits, wheel=TimerWheel(service.monotonic), checks=VersionChecks(),
            final_frames=final_frames, start_run=self._start_run, on_left=self._handle_client_left,
            on_delivered=self._record_delivery,
        )  # fmt: skip

    # Entry points: a request, a request of our stdio front, and a resumed stream.

    async def answer(self, request: CallRequest, held: HeldCall) -> Reply | LateReply:
        """Answer the request once the call is decided, and keep its client from timing out until then."""
        self._supersede_older(request, held)
        if request.from_our_front:
            return self.answer_front(request, held)
        return self._begin_wait(request, held, resumes=request.resumes and request.exchange.accepts_events)

    def answer_front(self, request: CallRequest, held: HeldCall) -> Reply:
        """Answer our stdio front: it gets the call's id at once, and repeats the call if the stream breaks."""
        answer = self._begin_wait(request, held, resumes=True, silence=0.0)
        return answer.stream(resumes=False, headers={protocol.HOLD_HEADER: held.id})

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
        return self._begin_wait(request, held, resumes=True, silence=0.0).stream(resumes=True)

    # Waiting.

    def _begin_wait(
        self, request: CallRequest, held: HeldCall, *, resumes: bool, silence: float | None = None
    ) -> HeldAnswer:
        known, now = self._client_hold(request), self._service.monotonic()
        waiting = WaitingRequest.read(request)
        patience = (
            self._learned_waits.get(waiting.client_key, known.wait, now) if known.learns else known.wait
        )
        client = ClientWait(
            request=waiting,
            held=held,
            wait=PendingWait(call_id=held.id, client=waiting.client, since=now),
            resumes=resumes,
            give_up_at=now + patience,
            silence=client_wait.quiet_time(request) if silence is None else silence,
            # A client whose wait was learned may apply one timeout to all its rounds.
            rounds_left=client_wait.rounds_left(request) if patience == known.wait else 0,
            link_shown=request.resumes and self._final_frames.shows_link(waiting),
        )
        if client.silence:
            client.beat(now, patience)
        link = elicitation.request_event(held, self._holds().link) if client.link_shown else None
        return HeldAnswer(self._context, client, link)

    def _client_hold(self, request: CallRequest) -> known_clients.ClientHold:
        settings = self._holds()
        return known_clients.client_hold(request.client, settings.hold_for, settings.clients)

    def _supersede_older(self, request: CallRequest, held: HeldCall) -> None:
        """End the same client's older requests for this call with WAITING; learn from their age how long it waits."""
        client_key = ClientKey(request.exchange.agent.name, request.client)
        now, known = self._service.monotonic(), self._client_hold(request)
        gap = self._waits.supersede(held.id, request.client, now)
        if gap is not None:
            self._service.wakeups.wake(held.id)
        if gap is not None and known.learns:
            self._learned_waits.record_abandoned(client_key, gap, now)
        elif known.learns and not self._waits.open_waits(held.id, request.client):
            self._learned_waits.record_repeat(client_key, held.id, known.wait, now)

    # Running.

    async def _start_run(
        self, held: HeldCall, approved: Outbound, wait: PendingWait | None = None
    ) -> EventBuffer | None:
        """Run the call once; returns the server's events, or None if *wait* is over."""
        await self._ensure_listed(held.call.server)
        if wait is not None and wait.is_over:
            return None
        within = self._holds().answer_within.get(held.call.server)
        events = self._forwarder.start(held, approved, self._objection, within=within)
        if wait is not None:
            wait.events = events
        return events

    async def run(self, held: HeldCall, approved: Outbound) -> AsyncIterator[bytes]:
        """Run the call once for a task, and yield the server's events meanwhile."""
        if (events := await self._start_run(held, approved)) is not None:
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
                client.request.client_key, client.held.id, self._service.monotonic()
            )

    async def record_collected(self, call_id: CallId, session: str = "") -> None:
        """Record that the agent has its answer. If the store fails, a repeat of the call gets the answer again."""
        with suppress(StoreError):
            await self._forwarder.record_collected(call_id, session)

    # Ending waits.

    def cancel(self, exchange: Exchange, request_id: frames.Id) -> None:
        """End the wait of the client that cancels this request, at whichever replica it waits."""
        key = request_key(exchange.agent.name, exchange.server, exchange.headers, request_id)
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
