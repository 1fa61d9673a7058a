"""The path of one tool call, top to bottom.

Eight steps: receive, classify the frame, judge, allow or deny at once, hold, tell, review, run once. What is not
a tool call crosses untouched. The review itself happens elsewhere: Slack, inbox, CLI and API call the service,
which wakes whoever waits here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from approvals import digest
from approvals.errors import AlreadyDecided, StoreError, TooMany, UnknownCall
from approvals.model import CallId, Classification, HeldCall, State
from approvals.service import ApprovalService
from gateway.call import param_headers
from gateway.call.audit import AuditLog
from gateway.call.exchange_limits import ExchangeLimits, Kind, TooManyExchangesError
from gateway.call.judging import Judge
from gateway.call.metrics import Metrics
from gateway.call.request import CallRequest, Exchange, session_key
from gateway.call.sessions import Session, Sessions
from gateway.call.settings import ProxySettings
from gateway.errors import GatewayError, InternalError, NotSentError, StoppingError, UnknownServerError
from gateway.hold import answering, ladder, messages, request_state
from gateway.hold.answering import HeldAnswers
from gateway.hold.ladder import AnswerMode
from gateway.hold.repeats import Repeats
from gateway.hold.request_state import ForgedError, Seals
from gateway.hold.running import Forwarder
from gateway.hold.tasks import Tasks
from gateway.policy.evaluation import Action, Verdict, require_approval
from gateway.policy.limits import Exceeded, Windows, window_key
from gateway.relay import rewriting
from gateway.relay.relay import Relay
from gateway.relay.reopening import ReopeningUpstream
from gateway.tools.catalogue import Catalogue, Tool
from gateway.tools.pins import format_diff
from gateway.upstreams import Upstream
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames, protocol

log = logging.getLogger("okayed.proxy")


class Proxy:
    """Judges every frame of every agent."""

    def __init__(
        self,
        *,
        settings: ProxySettings,
        service: ApprovalService,
        catalogue: Catalogue,
        windows: Windows,
        forwarder: Forwarder,
        metrics: Metrics,
        new_id: Callable[[], CallId],
        seals: Callable[[], Seals],
    ) -> None:
        self._service = service
        self._catalogue = catalogue
        self._windows = windows
        self._metrics = metrics
        self._new_id = new_id
        self._sessions = Sessions(service.store, service.clock)
        self._judge = Judge(lambda: self.settings, catalogue)
        self._held_answers = HeldAnswers(
            service=service, forwarder=forwarder, seals=seals, new_id=new_id, objection=self._judge.objection, learn=catalogue.ensure_listed, structured=catalogue.has_output_schema,
        )  # fmt: skip
        self.tasks = Tasks(service, self._held_answers, self._upstream)
        self._audit = AuditLog(service)
        self._repeats = Repeats(service, self._audit, self._held_answers.given)
        self._exchange_limits = ExchangeLimits(lambda: self.settings.shares)
        self._relay = Relay(
            settings=lambda: self.settings, sessions=self._sessions, catalogue=catalogue,
            held_answers=self._held_answers, tasks=self.tasks, audit=self._audit, exchange_limits=self._exchange_limits,
        )  # fmt: skip
        self._closed = False
        self.adopt(settings)

    def adopt(self, settings: ProxySettings) -> None:
        """Judge by *setting* from now on."""
        self.settings = settings
        self._held_answers.holds = settings.holds

    async def close(self) -> None:
        """Run and wait for nothing more, and refuse new requests; what is on its way goes on."""
        self._closed = True
        self._held_answers.close()
        await self.tasks.close()

    @property
    def parked(self) -> frozenset[asyncio.Task[Any] | None]:
        """The tasks of the clients that will take up their stream at the next gateway."""
        return self._held_answers.parked

    def cut(self) -> None:
        """End the streams of parked clients, which then come back."""
        self._held_answers.cut()

    async def handle(self, exchange: Exchange) -> Reply:
        """Answer one exchange; every fault becomes an answer with a plain message and the request's id."""
        return await self._answered(exchange, None, self._exchange(exchange))

    async def _exchange(self, exchange: Exchange) -> Reply:
        """Do one exchange with the server that it is for."""
        upstream, session = await self._reached(exchange)
        if exchange.verb == "GET":
            self._unless_closed()
        if exchange.verb != "POST":
            return await self._relay.stream_or_end(exchange, upstream, session)
        return await self._frame(exchange, upstream, session)

    async def _frame(self, exchange: Exchange, upstream: Upstream, session: Session | None) -> Reply:
        """Take one frame: refuse it, judge it, or pass it on."""
        try:
            frame = frames.decode(exchange.body)
        except frames.FrameError as error:
            wrong = protocol.Rejection(code=error.code, message=error.message)
            return self._audit.refuse(exchange, error.id, wrong)
        return await self._answered(exchange, frame, self._decoded(exchange, upstream, session, frame))

    async def _decoded(
        self, exchange: Exchange, upstream: Upstream, session: Session | None, frame: frames.Frame
    ) -> Reply:
        """Judge a tool call, and pass on what is none."""
        if isinstance(frame, frames.Request | frames.CallFrame):
            self._unless_closed()
        if (mismatch := protocol.check_headers(exchange.pairs, frame)) is not None:
            return self._audit.refuse(exchange, frames.request_id_of(frame), mismatch)
        if isinstance(frame, frames.CallFrame):
            return await self._call(exchange, upstream, session, frame)
        if isinstance(frame, frames.Request) and frame.method != "ping":
            self._held_answers.given.asked(session_key(exchange, session))
        return await self._relay.frame(exchange, upstream, frame)

    def _unless_closed(self) -> None:
        """Refuse what is new; answers and cancellations still reach the calls that run."""
        if self._closed:
            raise StoppingError

    def _upstream(self, server: str) -> Upstream | None:
        return self.settings.upstreams.get(server)

    async def _reached(self, exchange: Exchange) -> tuple[Upstream, Session | None]:
        """Return the server that an exchange is for, as its session sees it, and that session."""
        upstream = self._upstream(exchange.server)
        if upstream is None or not exchange.agent.may_use(exchange.server):
            raise UnknownServerError
        session = await self._sessions.find(exchange.agent, exchange.server, exchange.headers)
        if session is None:
            return upstream, None
        note = partial(self._audit.post, exchange, "session.reopened")
        lasting = ReopeningUpstream(
            inner=upstream, session=session, id=exchange.headers[protocol.SESSION_HEADER], reopened=note, clock=self._service.clock,
        )  # fmt: skip
        return lasting, session

    # Tool calls.

    async def _call(
        self, exchange: Exchange, upstream: Upstream, session: Session | None, frame: frames.CallFrame
    ) -> Reply:
        """Judge a tool call and do what the verdict says."""
        tool = await self._catalogue.find(exchange.server, frame.name)
        if (wrong := param_headers.check(exchange, frame, tool)) is not None:
            return self._audit.refuse(exchange, frame.id, wrong)
        made = param_headers.build(exchange, frame, tool)
        request = CallRequest.read(exchange, upstream, frame, session, param_headers=made)
        if (reply := await self._came_again(request)) is not None:
            return reply
        request = answering.without_state(request) if request_state.state_of(request.frame) else request
        verdict = self._judge.verdict(request, tool)
        # Asked again, it joins or collects the held call, and costs no second use of a limit.
        if (same := await self._repeats.find(request, tool, verdict, self.settings)) is not None:
            return await self._show(request, same)
        if verdict.action is Action.DENY:
            return self._deny(request, verdict)
        if (exceeded := self._take(request, verdict)) is not None:
            if not exceeded.limit.asks_person:
                return self._limit(request, verdict, exceeded)
            verdict = require_approval(verdict)
        if verdict.action is Action.ALLOW and self._mode(request) is not AnswerMode.TASK_2025:
            return await self._allow(request, verdict)
        return await self._hold(request, tool, verdict)

    async def _came_again(self, request: CallRequest) -> Reply | None:
        """Go on with a call that comes again with our sealed state or its id; None when it is a call of its own."""
        try:
            ticket = self._held_answers.ticket(request)
            if (named := await self._held_answers.named(request)) is not None:
                before = ticket.round if ticket else 0
                return self._held_answers.to_front(
                    replace(answering.without_state(request), round=before), named
                )
            held = None if ticket is None else await self._held_answers.earlier(request, ticket)
        except (ForgedError, UnknownCall):
            wrong = protocol.Rejection(code=frames.INVALID_PARAMS, message="Invalid or expired requestState")
            return self._audit.refuse(request.exchange, request.frame.id, wrong)
        if ticket is None or held is None:
            return None
        try:
            return await self._held_answers.again(request, held, ticket)
        except AlreadyDecided as error:
            wrong = protocol.Rejection(code=frames.INVALID_PARAMS, message=str(error))
            return self._audit.refuse(request.exchange, request.frame.id, wrong)

    def _take(self, request: CallRequest, verdict: Verdict) -> Exceeded | None:
        """Count one use of every limit, here and in the store, or of none and return the one that is exceeded."""
        scope, now = request.scope, self._service.clock()
        if (exceeded := self._windows.take(verdict.limits, scope, now)) is not None:
            return exceeded
        for limit in verdict.limits:
            if limit.amount:
                self._service.store.add_hit(
                    window_key(limit, scope), now, now + limit.window, float(limit.amount)
                )
        return None

    def _deny(self, request: CallRequest, verdict: Verdict) -> Reply:
        self._judged(request, "denied", verdict, why=verdict.reason)
        return _told(request.frame, messages.denied(verdict.reason))

    def _limit(self, request: CallRequest, verdict: Verdict, exceeded: Exceeded) -> Reply:
        self._judged(request, "limited", verdict)
        return _told(request.frame, messages.limited(exceeded, request.frame.name))

    async def _allow(self, request: CallRequest, verdict: Verdict) -> Reply:
        """Relay at once, unless too many exchanges of this agent are running."""
        sent = partial(self._relayed, request, verdict)
        try:
            return await self._exchange_limits.one(request.exchange.agent.name, Kind.REQUEST, sent)
        except TooManyExchangesError:
            self._metrics.judged(request.exchange.server, "limited")
            self._too_many(request.exchange)
            return _told(request.frame, messages.too_many_running())

    async def _relayed(self, request: CallRequest, verdict: Verdict) -> Reply:
        """Send an allowed call. The audit event is posted, and the disk is not waited for unless the config says so."""
        self._metrics.judged(request.exchange.server, "allowed")
        event = self._audit.event(
            request.exchange, "call.allowed", tool=request.frame.name, rule=verdict.rule
        )
        match self.settings.audit_allowed:
            case "post":
                self._service.store.post(event)
            case "wait":
                await self._service.store.append(event)
        reply = await request.upstream.send("POST", frames.rebuild(request.frame), request.headers)
        return self._relay.watched(request.exchange, rewriting.checked(reply))

    async def _hold(self, request: CallRequest, tool: Tool, verdict: Verdict) -> Reply:
        """Store the call, with its audit event, before anybody is told of it."""
        self._metrics.judged(request.exchange.server, "held")
        now = self._service.clock()
        call, server = request.call, request.exchange.server
        identity = self.settings.identities.get(server, "")
        # A call that needs nobody, but is asked for as a task, is held for its agent alone.
        allowed = verdict.action is Action.ALLOW
        held = HeldCall(
            id=self._new_id(),
            call=call,
            terms=verdict.terms,
            classification=_in_words(tool),
            rule=verdict.rule,
            reason=verdict.reason,
            policy_revision=self.settings.policy.revision,
            definition=tool.hash,
            identity=identity,
            address=self.settings.addresses.get(server, ""),
            changes=format_diff(tool.accepted, tool.canonical) if tool.accepted and tool.canonical else "",
            key=request.key,
            digest=digest.digest(call, tool.hash, identity),
            created_at=now,
            state=State.APPROVED if allowed else State.PENDING,
            decided_at=now if allowed else None,
            expires_at=now + (verdict.terms.approved_for if allowed else verdict.terms.expire_after),
            task=self._mode(request) is not AnswerMode.WAIT,
        )
        try:
            held = await self._service.hold(held)
        except TooMany as error:
            self._judged(request, "limited", verdict, why=str(error))
            return _told(request.frame, messages.too_many(error))
        return await self._show(request, held)

    async def _show(self, request: CallRequest, held: HeldCall) -> Reply:
        """Show a held call to the client in the manner that it can bear."""
        mode = self._mode(request)
        if mode is AnswerMode.WAIT:
            return await self._held_answers.open(request, held)
        return await self.tasks.begin(request, held, mode)

    def _mode(self, request: CallRequest) -> AnswerMode:
        if self._catalogue.has_tasks(request.exchange.server):
            return AnswerMode.WAIT
        return ladder.answer_mode(request.frame, request.era, self.settings.holds.tasks)

    def _judged(self, request: CallRequest, verdict: str, by: Verdict, **detail: Any) -> None:
        self._metrics.judged(request.exchange.server, verdict)
        self._audit.post(request.exchange, f"call.{verdict}", tool=request.frame.name, rule=by.rule, **detail)

    def _too_many(self, exchange: Exchange) -> None:
        self._audit.at_most_once_a_minute(exchange, "exchange.refused", why="too many exchanges at once")

    async def _answered(
        self, exchange: Exchange, frame: frames.Frame | None, answer: Awaitable[Reply]
    ) -> Reply:
        """Return the answer to a frame; a fault becomes one under its id."""
        try:
            return await answer
        except TooManyExchangesError as error:
            self._too_many(exchange)
            return _fault(frame, error)
        except GatewayError as error:
            return _fault(frame, error)
        except StoreError as error:
            return _fault(frame, GatewayError(f"{error} Nothing was executed for this request."))
        except Exception:
            log.exception("an exchange failed")
            return _fault(frame, InternalError())


def _in_words(tool: Tool) -> Classification:
    found = tool.classification
    return Classification(
        category=found.category, risk=found.risk, severity=found.severity, evidence=found.evidence
    )


def _fault(frame: frames.Frame | None, error: GatewayError) -> Reply:
    body = frames.error(frames.request_id_of(frame), error.code, str(error))
    unsent = {protocol.UNSENT_HEADER: "1"} if isinstance(error, NotSentError) else {}
    return frame_reply(body, status=error.status, headers={**error.headers, **unsent})


def _told(frame: frames.CallFrame, result: Mapping[str, Any]) -> Reply:
    return frame_reply(frames.result(frame.id, result))
