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
from gateway.call.audit import Record
from gateway.call.exchange_limits import Exchanges, Kind, TooManyExchangesError
from gateway.call.judging import Judge
from gateway.call.metrics import Metrics
from gateway.call.request import Asked, Incoming, place
from gateway.call.sessions import Session, Sessions
from gateway.call.settings import Setting
from gateway.errors import BrokenError, GatewayError, NotSentError, StoppingError, UnknownServerError
from gateway.hold import answering, ladder, messages, request_state
from gateway.hold.answering import Holding
from gateway.hold.ladder import Manner
from gateway.hold.repeats import Again
from gateway.hold.request_state import ForgedError, Seals
from gateway.hold.running import Forward
from gateway.hold.tasks import Tasks
from gateway.policy.evaluation import Action, Verdict, over
from gateway.policy.limits import Exceeded, Windows, key
from gateway.relay import rewriting
from gateway.relay.relay import Passing
from gateway.relay.reopening import Lasting
from gateway.tools.catalogue import Catalogue, Tool
from gateway.tools.pins import difference
from gateway.upstreams import Reply, Upstream, frame_reply
from gateway.wire import frames, protocol

log = logging.getLogger("okayed.proxy")


class Proxy:
    """Judges every frame of every agent."""

    def __init__(
        self,
        *,
        setting: Setting,
        service: ApprovalService,
        catalogue: Catalogue,
        windows: Windows,
        forward: Forward,
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
        self._judge = Judge(lambda: self.setting, catalogue)
        self._holding = Holding(
            service=service, forward=forward, seals=seals, new_id=new_id, objection=self._judge.objection, learn=catalogue.learn, structured=catalogue.structured,
        )  # fmt: skip
        self.tasks = Tasks(service, self._holding, self._upstream)
        self._record = Record(service)
        self._again = Again(service, self._record, self._holding.given)
        self._exchanges = Exchanges(lambda: self.setting.shares)
        self._passing = Passing(
            setting=lambda: self.setting, sessions=self._sessions, catalogue=catalogue,
            holding=self._holding, tasks=self.tasks, record=self._record, exchanges=self._exchanges,
        )  # fmt: skip
        self._closed = False
        self.adopt(setting)

    def adopt(self, setting: Setting) -> None:
        """Judge by *setting* from now on."""
        self.setting = setting
        self._holding.holds = setting.holds

    async def close(self) -> None:
        """Run and wait for nothing more, and refuse new requests; what is on its way goes on."""
        self._closed = True
        self._holding.close()
        await self.tasks.close()

    @property
    def parked(self) -> frozenset[asyncio.Task[Any] | None]:
        """The tasks of the clients that will take up their stream at the next gateway."""
        return self._holding.parked

    def cut(self) -> None:
        """End the streams of parked clients, which then come back."""
        self._holding.cut()

    async def handle(self, incoming: Incoming) -> Reply:
        """Answer one exchange; every fault becomes an answer with a plain message and the request's id."""
        return await self._answered(incoming, None, self._exchange(incoming))

    async def _exchange(self, incoming: Incoming) -> Reply:
        """Do one exchange with the server that it is for."""
        upstream, session = await self._reached(incoming)
        if incoming.verb == "GET":
            self._unless_closed()
        if incoming.verb != "POST":
            return await self._passing.stream_or_end(incoming, upstream, session)
        return await self._frame(incoming, upstream, session)

    async def _frame(self, incoming: Incoming, upstream: Upstream, session: Session | None) -> Reply:
        """Take one frame: refuse it, judge it, or pass it on."""
        try:
            frame = frames.decode(incoming.body)
        except frames.FrameError as error:
            wrong = protocol.Rejection(code=error.code, message=error.message)
            return self._record.refuse(incoming, error.id, wrong)
        return await self._answered(incoming, frame, self._decoded(incoming, upstream, session, frame))

    async def _decoded(
        self, incoming: Incoming, upstream: Upstream, session: Session | None, frame: frames.Frame
    ) -> Reply:
        """Judge a tool call, and pass on what is none."""
        if isinstance(frame, frames.Request | frames.ToolCall):
            self._unless_closed()
        if (mismatch := protocol.check_headers(incoming.pairs, frame)) is not None:
            return self._record.refuse(incoming, frames.id_of(frame), mismatch)
        if isinstance(frame, frames.ToolCall):
            return await self._call(Asked(incoming=incoming, upstream=upstream, frame=frame, session=session))
        if isinstance(frame, frames.Request) and frame.method != "ping":
            self._holding.given.asked(place(incoming, session))
        return await self._passing.frame(incoming, upstream, frame)

    def _unless_closed(self) -> None:
        """Refuse what is new; answers and cancellations still reach the calls that run."""
        if self._closed:
            raise StoppingError

    def _upstream(self, server: str) -> Upstream | None:
        return self.setting.upstreams.get(server)

    async def _reached(self, incoming: Incoming) -> tuple[Upstream, Session | None]:
        """Return the server that an exchange is for, as its session sees it, and that session."""
        upstream = self._upstream(incoming.server)
        if upstream is None or not incoming.agent.may_use(incoming.server):
            raise UnknownServerError
        session = await self._sessions.find(incoming.agent, incoming.server, incoming.headers)
        if session is None:
            return upstream, None
        note = partial(self._record.post, incoming, "session.reopened")
        lasting = Lasting(
            inner=upstream, session=session, id=incoming.headers[protocol.SESSION], reopened=note, clock=self._service.clock,
        )  # fmt: skip
        return lasting, session

    # Tool calls.

    async def _call(self, asked: Asked) -> Reply:
        """Judge a tool call and do what the verdict says."""
        tool = await self._catalogue.tool(asked.incoming.server, asked.frame.name)
        if (wrong := param_headers.mismatch(asked, tool)) is not None:
            return self._record.refuse(asked.incoming, asked.frame.id, wrong)
        asked = replace(asked, params=param_headers.made(asked, tool))
        if (reply := await self._came_again(asked)) is not None:
            return reply
        asked = answering.anew(asked) if request_state.state_of(asked.frame) else asked
        verdict = self._judge.verdict(asked, tool)
        # Asked again, it joins or collects the held call, and costs no second use of a limit.
        if (same := await self._again.find(asked, tool, verdict, self.setting)) is not None:
            return await self._show(asked, same)
        if verdict.action is Action.DENY:
            return self._deny(asked, verdict)
        if (exceeded := self._take(asked, verdict)) is not None:
            if not exceeded.limit.ask:
                return self._limit(asked, verdict, exceeded)
            verdict = over(verdict)
        if verdict.action is Action.ALLOW and self._manner(asked) is not Manner.TASK_2025:
            return await self._allow(asked, verdict)
        return await self._hold(asked, tool, verdict)

    async def _came_again(self, asked: Asked) -> Reply | None:
        """Go on with a call that comes again with our sealed state or its id; None when it is a call of its own."""
        try:
            ticket = self._holding.ticket(asked)
            if (named := await self._holding.named(asked)) is not None:
                before = ticket.round if ticket else 0
                return self._holding.to_front(replace(answering.anew(asked), round=before), named)
            held = None if ticket is None else await self._holding.earlier(asked, ticket)
        except (ForgedError, UnknownCall):
            wrong = protocol.Rejection(code=frames.INVALID_PARAMS, message="Invalid or expired requestState")
            return self._record.refuse(asked.incoming, asked.frame.id, wrong)
        if ticket is None or held is None:
            return None
        try:
            return await self._holding.again(asked, held, ticket)
        except AlreadyDecided as error:
            wrong = protocol.Rejection(code=frames.INVALID_PARAMS, message=str(error))
            return self._record.refuse(asked.incoming, asked.frame.id, wrong)

    def _take(self, asked: Asked, verdict: Verdict) -> Exceeded | None:
        """Count one use of every limit, here and in the store, or of none and return the one that is exceeded."""
        scope, now = asked.scope, self._service.clock()
        if (exceeded := self._windows.take(verdict.limits, scope, now)) is not None:
            return exceeded
        for limit in verdict.limits:
            if limit.amount:
                self._service.store.hit(key(limit, scope), now, now + limit.window, float(limit.amount))
        return None

    def _deny(self, asked: Asked, verdict: Verdict) -> Reply:
        self._judged(asked, "denied", verdict, why=verdict.reason)
        return _told(asked.frame, messages.denied(verdict.reason))

    def _limit(self, asked: Asked, verdict: Verdict, exceeded: Exceeded) -> Reply:
        self._judged(asked, "limited", verdict)
        return _told(asked.frame, messages.limited(exceeded, asked.frame.name))

    async def _allow(self, asked: Asked, verdict: Verdict) -> Reply:
        """Relay at once, unless too many exchanges of this agent are running."""
        sent = partial(self._relayed, asked, verdict)
        try:
            return await self._exchanges.one(asked.incoming.agent.name, Kind.REQUEST, sent)
        except TooManyExchangesError:
            self._metrics.judged(asked.incoming.server, "limited")
            self._too_many(asked.incoming)
            return _told(asked.frame, messages.too_many_running())

    async def _relayed(self, asked: Asked, verdict: Verdict) -> Reply:
        """Send an allowed call. The audit event is posted, and the disk is not waited for unless the config says so."""
        self._metrics.judged(asked.incoming.server, "allowed")
        event = self._record.event(asked.incoming, "call.allowed", tool=asked.frame.name, rule=verdict.rule)
        match self.setting.audit_allowed:
            case "post":
                self._service.store.post(event)
            case "wait":
                await self._service.store.append(event)
        reply = await asked.upstream.send("POST", frames.rebuild(asked.frame), asked.headers)
        return self._passing.watched(asked.incoming, rewriting.checked(reply))

    async def _hold(self, asked: Asked, tool: Tool, verdict: Verdict) -> Reply:
        """Store the call, with its audit event, before anybody is told of it."""
        self._metrics.judged(asked.incoming.server, "held")
        now = self._service.clock()
        call, server = asked.call, asked.incoming.server
        identity = self.setting.identities.get(server, "")
        # A call that needs nobody, but is asked for as a task, is held for its agent alone.
        allowed = verdict.action is Action.ALLOW
        held = HeldCall(
            id=self._new_id(),
            call=call,
            terms=verdict.terms,
            classification=_in_words(tool),
            rule=verdict.rule,
            reason=verdict.reason,
            policy_revision=self.setting.policy.revision,
            definition=tool.hash,
            identity=identity,
            address=self.setting.addresses.get(server, ""),
            changes=difference(tool.was, tool.written) if tool.was and tool.written else "",
            key=asked.key,
            digest=digest.digest(call, tool.hash, identity),
            created_at=now,
            state=State.APPROVED if allowed else State.PENDING,
            decided_at=now if allowed else None,
            expires_at=now + (verdict.terms.approved_for if allowed else verdict.terms.expire_after),
            task=self._manner(asked) is not Manner.WAIT,
        )
        try:
            held = await self._service.hold(held)
        except TooMany as error:
            self._judged(asked, "limited", verdict, why=str(error))
            return _told(asked.frame, messages.too_many(error))
        return await self._show(asked, held)

    async def _show(self, asked: Asked, held: HeldCall) -> Reply:
        """Show a held call to the client in the manner that it can bear."""
        manner = self._manner(asked)
        if manner is Manner.WAIT:
            return await self._holding.open(asked, held)
        return await self.tasks.begin(asked, held, manner)

    def _manner(self, asked: Asked) -> Manner:
        if self._catalogue.has_tasks(asked.incoming.server):
            return Manner.WAIT
        return ladder.manner(asked.frame, asked.era, self.setting.holds.tasks)

    def _judged(self, asked: Asked, verdict: str, by: Verdict, **detail: Any) -> None:
        self._metrics.judged(asked.incoming.server, verdict)
        self._record.post(asked.incoming, f"call.{verdict}", tool=asked.frame.name, rule=by.rule, **detail)

    def _too_many(self, incoming: Incoming) -> None:
        self._record.at_most_once_a_minute(incoming, "exchange.refused", why="too many exchanges at once")

    async def _answered(
        self, incoming: Incoming, frame: frames.Frame | None, answer: Awaitable[Reply]
    ) -> Reply:
        """Return the answer to a frame; a fault becomes one under its id."""
        try:
            return await answer
        except TooManyExchangesError as error:
            self._too_many(incoming)
            return _fault(frame, error)
        except GatewayError as error:
            return _fault(frame, error)
        except StoreError as error:
            return _fault(frame, GatewayError(f"{error} Nothing was executed for this request."))
        except Exception:
            log.exception("an exchange failed")
            return _fault(frame, BrokenError())


def _in_words(tool: Tool) -> Classification:
    found = tool.classification
    return Classification(
        category=found.category, risk=found.risk, severity=found.severity, evidence=found.evidence
    )


def _fault(frame: frames.Frame | None, error: GatewayError) -> Reply:
    body = frames.error(frames.id_of(frame), error.code, str(error))
    unsent = {protocol.UNSENT: "1"} if isinstance(error, NotSentError) else {}
    return frame_reply(body, status=error.status, headers={**error.headers, **unsent})


def _told(frame: frames.ToolCall, result: Mapping[str, Any]) -> Reply:
    return frame_reply(frames.result(frame.id, result))
