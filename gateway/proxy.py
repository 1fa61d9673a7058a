"""The path of one tool call, top to bottom.

Eight steps: receive, classify the frame, judge, allow or deny at once, hold, tell, review, run once. What is not
a tool call crosses untouched. The review itself happens elsewhere: Slack, inbox, CLI and API call the service,
which wakes whoever waits here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from approvals import digest
from approvals.errors import StoreError, TooMany
from approvals.model import AuditEvent, CallId, Classification, HeldCall, ToolCall
from approvals.service import ApprovalService
from gateway import frames, hold, protocol, relay, replies, sse
from gateway.agents import Agent
from gateway.catalogue import Catalogue, Tool
from gateway.errors import GatewayError, UnknownServerError
from gateway.forward import Forward, Way
from gateway.hold import Rung
from gateway.limits import Exceeded, Scope, Windows, key
from gateway.metrics import Metrics
from gateway.policy import Action, Facts, Policy, Verdict, stricter
from gateway.sessions import Sessions
from gateway.upstreams import EVENTS, JSON, Reply, Upstream, frame_reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One exchange as a front received it. `pairs` are the headers in order, names in lower case."""

    agent: Agent
    server: str
    verb: str
    body: bytes
    pairs: tuple[tuple[str, str], ...]

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by name."""
        return dict(self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the config says about judging and forwarding; replaced whole when the config changes."""

    policy: Policy
    upstreams: Mapping[str, Upstream]
    #: Seconds a connection is kept open for a held call; None is auto.
    hold_for: float | None = None
    #: Whether the audit events of allowed calls are posted, waited for, or left out: post, wait, off.
    audit_allowed: str = "post"
    cancel_on_disconnect: bool = False


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
    ) -> None:
        self.setting = setting
        self._service = service
        self._catalogue = catalogue
        self._windows = windows
        self._forward = forward
        self._metrics = metrics
        self._new_id = new_id
        self._sessions = Sessions()

    async def handle(self, incoming: Incoming) -> Reply:
        """Answer one exchange; every fault becomes an answer with a plain message and the request's id."""
        try:
            upstream = self._upstream(incoming)
            self._sessions.check(incoming.agent, incoming.server, incoming.headers)
            if incoming.verb != "POST":
                return await self._stream_or_end(incoming, upstream)
            return await self._frame(incoming, upstream)
        except (GatewayError, StoreError) as error:
            return _fault(None, error)

    async def _frame(self, incoming: Incoming, upstream: Upstream) -> Reply:
        """Take one frame: refuse it, judge it, or pass it on."""
        try:
            frame = frames.decode(incoming.body)
        except frames.FrameError as error:
            wrong = protocol.Rejection(code=error.code, message=error.message)
            return self._refuse(incoming, error.id, wrong)
        try:
            if (mismatch := protocol.check_headers(incoming.pairs, frame)) is not None:
                return self._refuse(incoming, frames.id_of(frame), mismatch)
            if isinstance(frame, frames.ToolCall):
                return await self._call(incoming, upstream, frame)
            return await self._pass(incoming, upstream, frame)
        except (GatewayError, StoreError) as error:
            return _fault(frame, error)

    def _upstream(self, incoming: Incoming) -> Upstream:
        upstream = self.setting.upstreams.get(incoming.server)
        if upstream is None or not incoming.agent.may_use(incoming.server):
            raise UnknownServerError
        return upstream

    # What is no tool call.

    async def _stream_or_end(self, incoming: Incoming, upstream: Upstream) -> Reply:
        """Open the server's own stream (GET), or end a session (DELETE)."""
        headers = protocol.crossing(incoming.headers, None)
        reply = relay.checked(await upstream.send(incoming.verb, b"", headers))
        if incoming.verb == "DELETE":
            self._sessions.closed(incoming.server, incoming.headers)
        return self._watched(incoming, reply)

    async def _pass(self, incoming: Incoming, upstream: Upstream, frame: frames.Frame) -> Reply:
        """Relay a frame untouched; only the tools that the policy hides are taken out of a list."""
        if not protocol.may_pass(frame, incoming.headers):
            return self._not_passed(incoming, frame)
        reply = relay.checked(
            await upstream.send("POST", incoming.body, protocol.crossing(incoming.headers, frame))
        )
        match frame:
            case frames.Request(method="initialize"):
                self._sessions.opened(incoming.agent, incoming.server, reply, frame.params)
            case frames.Request(method="tools/list"):
                return await relay.without_hidden(
                    reply, lambda tool: self.setting.policy.hidden(incoming.server, tool)
                )
        return self._watched(incoming, reply)

    def _watched(self, incoming: Incoming, reply: Reply) -> Reply:
        return relay.watched(reply, lambda: self._catalogue.forget(incoming.server))

    def _not_passed(self, incoming: Incoming, frame: frames.Frame) -> Reply:
        """Default deny: an unknown method is answered, an unknown notification or answer is dropped."""
        if not isinstance(frame, frames.Request):
            self._post(incoming, "frame.dropped", method=getattr(frame, "method", "an answer"))
            return Reply(status=202)
        modern = protocol.era(incoming.headers, frame) is protocol.Era.MODERN
        unknown = protocol.Rejection(code=-32601, message="Method not found", status=404 if modern else 200)
        return self._refuse(incoming, frame.id, unknown)

    def _refuse(self, incoming: Incoming, request_id: frames.Id | None, wrong: protocol.Rejection) -> Reply:
        self._post(incoming, "frame.refused", code=wrong.code, why=wrong.message)
        return frame_reply(
            frames.error(request_id, wrong.code, wrong.message, wrong.data), status=wrong.status
        )

    # Tool calls.

    async def _call(self, incoming: Incoming, upstream: Upstream, frame: frames.ToolCall) -> Reply:
        """Judge a tool call and do what the verdict says."""
        tool = await self._catalogue.tool(incoming.server, frame.name)
        verdict = self._judge(incoming, frame, tool)
        if verdict.action is Action.DENY:
            return self._deny(incoming, frame, verdict)
        if (
            verdict.action is Action.REQUIRE_APPROVAL
            and (same := await self._asked_before(incoming, frame)) is not None
        ):
            return await self._hold_open(incoming, upstream, frame, same)
        if (exceeded := self._take(incoming, frame, verdict)) is not None:
            if verdict.action is Action.REQUIRE_APPROVAL or not exceeded.limit.ask:
                return self._limit(incoming, frame, verdict, exceeded)
            verdict = replace(
                verdict, action=Action.REQUIRE_APPROVAL, rule=f"{verdict.rule} (over its limit)"
            )
        if verdict.action is Action.ALLOW:
            return await self._allow(incoming, upstream, frame, verdict)
        return await self._hold(incoming, upstream, frame, tool, verdict)

    def _judge(self, incoming: Incoming, frame: frames.ToolCall, tool: Tool) -> Verdict:
        facts = Facts(
            server=incoming.server,
            tool=frame.name,
            agent=incoming.agent.name,
            owner=incoming.agent.owner,
            arguments=frame.params.get("arguments", {}),
            classification=tool.classification,
        )
        return self.setting.policy.evaluate(facts)

    def _take(self, incoming: Incoming, frame: frames.ToolCall, verdict: Verdict) -> Exceeded | None:
        """Count one use of every limit, here and in the store, or of none and return the one that is exceeded."""
        scope, now = self._scope(incoming, frame), self._service.clock()
        if (exceeded := self._windows.take(verdict.limits, scope, now)) is not None:
            return exceeded
        for limit in verdict.limits:
            self._service.store.hit(key(limit, scope), now, now + limit.window)
        return None

    async def _asked_before(self, incoming: Incoming, frame: frames.ToolCall) -> HeldCall | None:
        """Find the held call that this one, asked again, joins or collects. It costs no second use of a limit."""
        return await self._service.same(digest.key(_frozen(incoming, frame)))

    def _deny(self, incoming: Incoming, frame: frames.ToolCall, verdict: Verdict) -> Reply:
        self._metrics.judged(incoming.server, "denied")
        self._post(incoming, "call.denied", tool=frame.name, rule=verdict.rule, why=verdict.reason)
        return _told(frame, replies.denied(verdict.reason))

    def _limit(
        self, incoming: Incoming, frame: frames.ToolCall, verdict: Verdict, exceeded: Exceeded
    ) -> Reply:
        self._metrics.judged(incoming.server, "limited")
        self._post(incoming, "call.limited", tool=frame.name, rule=verdict.rule)
        return _told(frame, replies.limited(exceeded.limit.text, frame.name, exceeded.retry_after))

    async def _allow(
        self, incoming: Incoming, upstream: Upstream, frame: frames.ToolCall, verdict: Verdict
    ) -> Reply:
        """Relay at once. The audit event is posted, and the disk is not waited for unless the config says so."""
        self._metrics.judged(incoming.server, "allowed")
        event = self._event(incoming, "call.allowed", tool=frame.name, rule=verdict.rule)
        match self.setting.audit_allowed:
            case "post":
                self._service.store.post(event)
            case "wait":
                await self._service.store.append(event)
        reply = await upstream.send("POST", frames.rebuild(frame), protocol.crossing(incoming.headers, frame))
        return self._watched(incoming, relay.checked(reply))

    async def _hold(
        self, incoming: Incoming, upstream: Upstream, frame: frames.ToolCall, tool: Tool, verdict: Verdict,
    ) -> Reply:  # fmt: skip
        """Store the call, with its audit event, before anybody is told of it."""
        self._metrics.judged(incoming.server, "held")
        now = self._service.clock()
        call = _frozen(incoming, frame)
        held = HeldCall(
            id=self._new_id(),
            call=call,
            terms=verdict.terms,
            classification=_in_words(tool),
            rule=verdict.rule,
            reason=verdict.reason,
            policy_revision=self.setting.policy.revision,
            definition=tool.hash,
            key=digest.key(call),
            digest=digest.digest(call, tool.hash),
            created_at=now,
            expires_at=now + verdict.terms.expire_after,
        )
        try:
            held = await self._service.hold(held)
        except TooMany:
            self._post(
                incoming, "call.limited", tool=frame.name, rule=verdict.rule, why="too many calls wait"
            )
            return _told(frame, replies.too_many())
        return await self._hold_open(incoming, upstream, frame, held)

    async def _hold_open(
        self, incoming: Incoming, upstream: Upstream, frame: frames.ToolCall, held: HeldCall
    ) -> Reply:
        """Answer with a stream that stays open while people decide; without one for a client that takes only JSON."""
        chunks = self._until_told(incoming, upstream, frame, held)
        accepted = incoming.headers.get("accept", "*/*")
        if EVENTS in accepted or "*/*" in accepted:
            return Reply(status=200, headers=sse.HEADERS, chunks=chunks)
        return Reply(status=200, headers={"Content-Type": JSON}, chunks=relay.last_frame(chunks))

    async def _until_told(
        self, incoming: Incoming, upstream: Upstream, frame: frames.ToolCall, held: HeldCall,
    ) -> AsyncIterator[bytes]:  # fmt: skip
        """Wait, run and tell, as the ladder says; ends with the frame that answers the request."""
        give_up_at = self._service.clock() + hold.patience(self.setting.hold_for)
        beats = 0
        with self._service.attending(held.id):
            try:
                while (step := hold.step(held, self._service.clock(), give_up_at)).rung in (
                    Rung.WAIT,
                    Rung.RUN,
                ):
                    if step.rung is Rung.WAIT:
                        yield hold.sign_of_life(held, beats, frame.progress_token)
                        beats += 1
                        held = await self._service.changed(held, step.seconds)
                    else:
                        async for event in self._run(incoming, upstream, frame, held):
                            yield event
                        held = await self._service.get(held.id)
                yield sse.event(replies.final(held, frame.id))
            except (asyncio.CancelledError, GeneratorExit):
                self._left(held)
                raise
        # Only a client that took the last frame gets here; one that left collects it by asking again.
        if step.rung is Rung.TELL:
            await self._forward.collected(held.id)

    def _left(self, held: HeldCall) -> None:
        """A client that hangs up is tired, and the call stays; unless the config takes it for a no."""
        if self.setting.cancel_on_disconnect:
            self._forward.cancel(held)

    async def _run(
        self, incoming: Incoming, upstream: Upstream, frame: frames.ToolCall, held: HeldCall,
    ) -> AsyncIterator[bytes]:  # fmt: skip
        """Let the call run once, and show what the server says meanwhile."""
        way = Way(frame=frame, upstream=upstream, headers=protocol.crossing(incoming.headers, frame))
        shown = self._forward.start(held, way, lambda call: self._objection(incoming, frame, call))
        while (event := await shown.get()) is not None:
            yield event

    def _objection(self, incoming: Incoming, frame: frames.ToolCall, held: HeldCall) -> str | None:
        """Say why an approved call may not run after all: the tool or the policy is not what was approved."""
        tool = self._catalogue.known(held.call.server, held.call.tool)
        if tool is None:
            return None
        if held.definition and tool.hash != held.definition:
            return "the definition of this tool changed while the call waited"
        return stricter(self._judge(incoming, frame, tool), held)

    # Words for the audit trail.

    def _post(self, incoming: Incoming, kind: str, *, tool: str = "", **detail: Any) -> None:
        self._service.store.post(self._event(incoming, kind, tool=tool, **detail))

    def _event(self, incoming: Incoming, kind: str, *, tool: str = "", **detail: Any) -> AuditEvent:
        agent = incoming.agent.name
        now = self._service.clock()
        return AuditEvent(
            at=now, kind=kind, actor=agent, agent=agent, server=incoming.server, tool=tool, detail=detail
        )

    @staticmethod
    def _scope(incoming: Incoming, frame: frames.ToolCall) -> Scope:
        agent = incoming.agent.name
        session = incoming.headers.get("mcp-session-id", agent)
        return Scope(agent=agent, session=session, server=incoming.server, tool=frame.name)


def _frozen(incoming: Incoming, frame: frames.ToolCall) -> ToolCall:
    agent = incoming.agent
    return ToolCall(
        agent=agent.name,
        owner=agent.owner,
        session=incoming.headers.get("mcp-session-id", agent.name),
        server=incoming.server,
        tool=frame.name,
        arguments=frame.arguments,
    )


def _in_words(tool: Tool) -> Classification:
    found = tool.classification
    return Classification(
        category=found.category, risk=found.risk, severity=found.severity, evidence=found.evidence
    )


def _fault(frame: frames.Frame | None, error: GatewayError | StoreError) -> Reply:
    if isinstance(error, GatewayError):
        return frame_reply(frames.error(frames.id_of(frame), error.code, str(error)), status=error.status)
    return frame_reply(
        frames.error(frames.id_of(frame), GatewayError.code, f"{error} The call was not executed.")
    )


def _told(frame: frames.ToolCall, result: Mapping[str, Any]) -> Reply:
    return frame_reply(frames.result(frame.id, result))
