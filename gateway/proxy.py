"""The path of one tool call, in eight steps.

1. Receive: find the server and the session of the exchange.
2. Classify: decode the frame; everything but a tool call goes to the relay.
3. Judge: evaluate the policy, unless the request refers to a held call or repeats one.
4. Allow or deny. An allowed call that has to wait for nothing takes steps 1 to 4 without a task (`Proxy.at_once`).
5. Hold: store the call, and its audit event, in one commit.
6. Wait: answer with a task or keep the client waiting; the channels show the call to its approvers.
7. Review: approvers decide in Slack, the inbox, the CLI or the API (`approvals.service`).
8. Run once: claim the call, send the approved bytes, store the answer (`hold.running`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from approvals.errors import AlreadyDecided, QuotaExceeded, StoreError, UnknownCall
from approvals.model import CallId, HeldCall
from approvals.service import ApprovalService
from approvals.signals import Signal
from approvals.store import StateStore
from gateway.call import faults, param_headers
from gateway.call.audit import AuditLog
from gateway.call.exchange_limits import ExchangeLimits, Kind, TooManyExchangesError
from gateway.call.hold_settings import HoldSettings
from gateway.call.judging import Judge
from gateway.call.limiter import Limiter
from gateway.call.metrics import Metrics
from gateway.call.request import CallRequest, Exchange, session_key
from gateway.call.sending import LineSending, Sending
from gateway.call.sessions import Session, Sessions
from gateway.call.settings import ProxySettings
from gateway.errors import GatewayError, InternalError, StoppingError, UnknownServerError
from gateway.hold import continuations, ladder, messages, new_calls, request_state
from gateway.hold.answering import HeldAnswers
from gateway.hold.continuations import Continuations
from gateway.hold.final_frames import FinalFrames
from gateway.hold.ladder import AnswerMode
from gateway.hold.repeats import Repeats
from gateway.hold.request_state import InvalidStateError, StateSealer
from gateway.hold.running import Forwarder
from gateway.hold.tasks.methods import Tasks
from gateway.policy.evaluation import Action, Verdict, require_approval
from gateway.policy.limits import ExceededLimit
from gateway.relay import rewriting
from gateway.relay.relay import Relay
from gateway.relay.reopening import ReopeningUpstream
from gateway.tools.catalogue import Catalogue, Tool
from gateway.upstreams import Upstream
from gateway.upstreams.reply import LateReply, Reply, decide, frame_reply
from gateway.wire import frames, protocol

log = logging.getLogger("okayed.proxy")


class Proxy:
    """Judges and answers every exchange of every agent."""

    def __init__(
        self,
        *,
        settings: ProxySettings,
        service: ApprovalService,
        state: StateStore,
        catalogue: Catalogue,
        limiter: Limiter,
        forwarder: Forwarder,
        metrics: Metrics,
        new_id: Callable[[], CallId],
        sealer: Callable[[], StateSealer],
    ) -> None:
        self.settings = settings
        self._service = service
        self._catalogue = catalogue
        self._limiter = limiter
        self._metrics = metrics
        self._new_id = new_id
        self._closed = False
        self._audit = AuditLog(service.store, clock=service.clock, wall=service.wall)
        self._sessions = Sessions(state, service.clock)
        self._exchange_limits = ExchangeLimits(lambda: self.settings.shares)
        self._judge = Judge(lambda: self.settings, catalogue)

        def holds() -> HoldSettings:
            return self.settings.holds

        self._held_answers = HeldAnswers(
            service=service, forwarder=forwarder, holds=holds, objection=self._judge.objection,
            final_frames=FinalFrames(holds, sealer, catalogue.has_output_schema), ensure_listed=catalogue.ensure_listed,
        )  # fmt: skip
        self._continuations = Continuations(service, self._held_answers, sealer, new_id)
        self._repeats = Repeats(service, self._audit, self._held_answers.delivered)
        self.tasks = Tasks(service, self._held_answers, self._continuations, self._upstream)
        self._relay = Relay(
            settings=lambda: self.settings, sessions=self._sessions, catalogue=catalogue,
            held_answers=self._held_answers, tasks=self.tasks, audit=self._audit, exchange_limits=self._exchange_limits,
        )  # fmt: skip

    def adopt(self, settings: ProxySettings) -> None:
        """Switch to *settings*."""
        self.settings = settings

    def at_once(self, exchange: Exchange) -> Sending | None:
        """Take an allowed call through steps 1 to 4 without waiting; None, and no effect, if a step has to wait.

        For a call that is refused or held it also returns None: `begin` answers that call.
        """
        try:
            return None if self._closed else self._send_at_once(exchange)
        except (frames.FrameError, GatewayError, StoreError):
            return None
        except Exception:
            log.exception("an exchange could not be answered at once")
            return None

    async def handle(self, exchange: Exchange) -> Reply:
        """Answer one exchange, and wait until its status is decided."""
        return await decide(await self.begin(exchange))

    async def begin(self, exchange: Exchange) -> Reply | LateReply:
        """Answer one exchange; the reply to a held call may be decided late.

        A fault becomes a JSON-RPC error with the id of the request.
        """
        return await self._catch(exchange, None, self._receive(exchange))

    # 1. Receive.

    async def _receive(self, exchange: Exchange) -> Reply | LateReply:
        upstream, session = await self._find_server(exchange)
        if exchange.verb == "GET":
            self._refuse_if_closed()
        if exchange.verb != "POST":
            return await self._relay.stream_or_end(exchange, upstream, session)
        try:
            frame = exchange.decode()
        except frames.FrameError as error:
            rejection = protocol.Rejection(code=error.code, message=error.message)
            return self._audit.refuse(exchange, error.id, rejection)
        return await self._catch(exchange, frame, self._classify(exchange, upstream, session, frame))

    async def _find_server(self, exchange: Exchange) -> tuple[Upstream, Session | None]:
        """Return the server of an exchange, and the agent's session with it; a lost session is reopened."""
        upstream = self._permitted_upstream(exchange)
        session = await self._sessions.find(exchange.agent, exchange.server, exchange.head.session_id)
        return self._in_session(exchange, upstream, session), session

    def _permitted_upstream(self, exchange: Exchange) -> Upstream:
        upstream = self._upstream(exchange.server)
        if upstream is None or not exchange.agent.may_use(exchange.server):
            raise UnknownServerError
        return upstream

    def _in_session(self, exchange: Exchange, upstream: Upstream, session: Session | None) -> Upstream:
        session_id = exchange.head.session_id
        if session is None or session_id is None:
            return upstream
        return ReopeningUpstream(
            inner=upstream, session=session, id=session_id,
            on_reopened=partial(self._audit.post, exchange, "session.reopened"), clock=self._service.clock,
        )  # fmt: skip

    def _upstream(self, server: str) -> Upstream | None:
        return self.settings.upstreams.get(server)

    def _refuse_if_closed(self) -> None:
        """Refuse new requests while the gateway stops; responses and cancellations still reach running calls."""
        if self._closed:
            raise StoppingError

    # 2. Classify.

    async def _classify(
        self, exchange: Exchange, upstream: Upstream, session: Session | None, frame: frames.Frame
    ) -> Reply | LateReply:
        if isinstance(frame, frames.Request | frames.CallFrame):
            self._refuse_if_closed()
        if (mismatch := protocol.check_headers(exchange.head.mcp, frame)) is not None:
            return self._audit.refuse(exchange, frames.request_id_of(frame), mismatch)
        if isinstance(frame, frames.CallFrame):
            return await self._judge_call(exchange, upstream, session, frame)
        if isinstance(frame, frames.Request) and frame.method != "ping":
            self._held_answers.delivered.record_request(session_key(exchange, session))
        return await self._relay.frame(exchange, upstream, frame)

    # 3. Judge.

    async def _judge_call(
        self, exchange: Exchange, upstream: Upstream, session: Session | None, frame: frames.CallFrame
    ) -> Reply | LateReply:
        tool = await self._catalogue.find(exchange.server, frame.name)
        if (mismatch := param_headers.check(exchange, frame, tool)) is not None:
            return self._audit.refuse(exchange, frame.id, mismatch)
        built = param_headers.build(exchange, frame, tool)
        request = CallRequest.read(exchange, upstream, frame, session, param_headers=built)
        if (reply := await self._continue(request)) is not None:
            return reply
        if request_state.own_state(frame):
            request = continuations.without_state(request)
        verdict = self._judge.verdict(request, tool)
        # A repeat joins or collects its held call. It is not counted against limits a second time.
        if (held := await self._repeats.find(request, tool, verdict, self.settings)) is not None:
            return await self._answer_held(request, held)
        return await self._act(request, tool, verdict)

    async def _continue(self, request: CallRequest) -> Reply | LateReply | None:
        """Answer a request that refers to a held call by our state or its id; None for any other."""
        try:
            return await self._continuations.answer(request)
        except (InvalidStateError, UnknownCall):
            message = "Invalid or expired requestState"
        except AlreadyDecided as error:
            message = str(error)
        rejection = protocol.Rejection(code=frames.INVALID_PARAMS, message=message)
        return self._audit.refuse(request.exchange, request.frame.id, rejection)

    # 4. Allow or deny.

    async def _act(self, request: CallRequest, tool: Tool, verdict: Verdict) -> Reply | LateReply:
        if verdict.action is Action.DENY:
            return self._deny(request, verdict)
        now = self._service.clock()
        if (exceeded := await self._limiter.take(verdict.limits, request.limit_user, now)) is not None:
            if not exceeded.limit.needs_approval:
                return self._limit(request, verdict, exceeded)
            verdict = require_approval(verdict)
        if verdict.action is Action.ALLOW and self._answer_mode(request) is not AnswerMode.TASK_2025:
            return await self._allow(request, verdict)
        return await self._hold(request, tool, verdict)

    def _deny(self, request: CallRequest, verdict: Verdict) -> Reply:
        self._record(request, "denied", verdict, why=verdict.reason)
        return _result(request.frame, messages.denied_result(verdict.reason))

    def _limit(self, request: CallRequest, verdict: Verdict, exceeded: ExceededLimit) -> Reply:
        self._record(request, "limited", verdict)
        return _result(request.frame, messages.limited_result(exceeded, request.frame.name))

    async def _allow(self, request: CallRequest, verdict: Verdict) -> Reply:
        """Send the call now, unless too many exchanges of this agent are running."""
        send = partial(self._send, request, verdict)
        try:
            return await self._exchange_limits.run(request.exchange.agent.name, Kind.REQUEST, send)
        except TooManyExchangesError:
            self._metrics.count_call(request.exchange.server, "limited")
            self._record_too_many(request.exchange)
            return _result(request.frame, messages.too_many_running())

    async def _send(self, request: CallRequest, verdict: Verdict) -> Reply:
        """Send an allowed call. Only `audit.allowed: wait` makes it wait until its audit event is on disk."""
        if self.settings.audit_allowed == "wait":
            await self._service.store.append(
                self._audit.allowed_event(request.exchange, request.frame.name, verdict.rule)
            )
        self._record_allowed(request, verdict)
        reply = await request.upstream.send("POST", frames.rebuild(request.frame), request.headers)
        return self._filter(request.exchange, reply)

    def _record_allowed(self, request: CallRequest, verdict: Verdict) -> None:
        if self.settings.audit_allowed == "post":
            self._audit.post_allowed(request.exchange, request.frame.name, verdict.rule)
        self._metrics.count_call(request.exchange.server, "allowed")

    def _filter(self, exchange: Exchange, reply: Reply) -> Reply:
        """Return the server's reply as the client may see it; raises `GatewayError` for a 401 and for a redirect."""
        return self._relay.watch_for_changes(exchange, rewriting.filter_reply(reply))

    # 1 to 4, at once.

    def _send_at_once(self, exchange: Exchange) -> Sending | None:
        """Reserve a connection for an allowed call, and record it; None if it has to wait."""
        if self.settings.audit_allowed == "wait" or (found := self._find_allowed(exchange)) is None:
            return None
        request, verdict = found
        if (line := request.upstream.line()) is None:
            return None
        if (counted := self._exchange_limits.begin(exchange.agent.name, Kind.REQUEST)) is None:
            line.release()
            return None
        try:
            self._record_allowed(request, verdict)
        except BaseException:
            counted.end()
            line.release()
            raise
        self._held_answers.delivered.record_request(request.session_key)
        return LineSending(line, request, counted, self._filter)

    def _find_allowed(self, exchange: Exchange) -> tuple[CallRequest, Verdict] | None:
        """Return an allowed call without limits, and its verdict; None for any other exchange.

        It refers to no held call, and its tool has been listed.
        """
        upstream = self._permitted_upstream(exchange)
        session = self._sessions.find_at_once(exchange.agent, exchange.server, exchange.head.session_id)
        frame = exchange.decode()
        if not isinstance(frame, frames.CallFrame) or not _is_ordinary(exchange, frame):
            return None
        tool = self._catalogue.find_at_once(exchange.server, frame.name)
        if tool is None or tool.has_param_headers:
            return None
        upstream = self._in_session(exchange, upstream, session)
        request = CallRequest.read(exchange, upstream, frame, session)
        verdict = self._judge.verdict(request, tool)
        return (request, verdict) if verdict.action is Action.ALLOW and not verdict.limits else None

    # 5. Hold.

    async def _hold(self, request: CallRequest, tool: Tool, verdict: Verdict) -> Reply | LateReply:
        """Store the call and its audit event before the client or a channel learns of it."""
        self._metrics.count_call(request.exchange.server, "held")
        held = new_calls.from_request(
            request, tool, verdict, self.settings, call_id=self._new_id(), now=self._service.clock(),
            task=self._answer_mode(request) is not AnswerMode.WAIT,
        )  # fmt: skip
        try:
            held = await self._service.hold(held)
        except QuotaExceeded as error:
            self._record(request, "limited", verdict, why=str(error))
            return _result(request.frame, messages.too_many_waiting(error))
        return await self._answer_held(request, held)

    # 6. Wait.

    async def _answer_held(self, request: CallRequest, held: HeldCall) -> Reply | LateReply:
        """Answer with a task, or keep the client waiting."""
        mode = self._answer_mode(request)
        if mode is AnswerMode.WAIT:
            return await self._held_answers.answer(request, held)
        return await self.tasks.begin(request, held, mode)

    def _answer_mode(self, request: CallRequest) -> AnswerMode:
        if self._catalogue.has_tasks(request.exchange.server):
            return AnswerMode.WAIT
        return ladder.answer_mode(request.frame, request.era, self.settings.holds.tasks)

    # Faults and audit events.

    async def _catch(
        self, exchange: Exchange, frame: frames.Frame | None, answer: Awaitable[Reply | LateReply]
    ) -> Reply | LateReply:
        """Return the answer to a frame; a fault becomes a JSON-RPC error with its id."""
        try:
            return await answer
        except TooManyExchangesError as error:
            self._record_too_many(exchange)
            return faults.build_reply(frame, error)
        except (GatewayError, StoreError) as error:
            return faults.build_reply(frame, error)
        except Exception:
            log.exception("an exchange failed")
            return faults.build_reply(frame, InternalError())

    def _record(self, request: CallRequest, outcome: str, verdict: Verdict, **detail: Any) -> None:
        self._metrics.count_call(request.exchange.server, outcome)
        self._audit.post(
            request.exchange, f"call.{outcome}", tool=request.frame.name, rule=verdict.rule, **detail
        )

    def _record_too_many(self, exchange: Exchange) -> None:
        self._audit.at_most_once_a_minute(exchange, "exchange.refused", why="too many exchanges at once")

    # Signals of other replicas.

    def act_on_cancel(self, signal: Signal) -> None:
        """End the wait of a client that cancelled its request at another replica."""
        self._held_answers.act_on_cancel(signal)

    # Shutdown.

    async def close(self) -> None:
        """Refuse new requests, start no more runs, end every wait; running calls continue."""
        self._closed = True
        self._held_answers.close()
        await self.tasks.close()

    @property
    def lingering(self) -> frozenset[asyncio.Task[Any] | None]:
        """The tasks of the clients that will resume their streams at the next gateway."""
        return self._held_answers.lingering

    def end_lingering(self) -> None:
        """End the lingering streams; their clients reconnect."""
        self._held_answers.end_lingering()


def _result(frame: frames.CallFrame, result: Mapping[str, Any]) -> Reply:
    return frame_reply(frames.build_result(frame.id, result))


def _is_ordinary(exchange: Exchange, frame: frames.CallFrame) -> bool:
    """Return whether a call refers to no held call, asks for no task, and matches its headers."""
    return (
        (not frame.rest or frame.rest.keys() == {"_meta"})
        and protocol.HOLD_HEADER not in exchange.headers
        and protocol.check_headers(exchange.head.mcp, frame) is None
    )
