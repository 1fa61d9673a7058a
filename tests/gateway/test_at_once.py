"""An exchange that is answered at once has the same effects as one that is handled in a task.

Random exchanges go through two gateways: one only handles, the other first tries `Proxy.at_once`, as the front does.
"""

import asyncio
import itertools
import json
import re
from contextlib import aclosing

from hypothesis import example, given
from hypothesis import strategies as st

from approvals.errors import StoreError
from approvals.identity import Directory
from approvals.model import Approver, CallId
from approvals.service import ApprovalService
from approvals.store.memory.store import MemoryStore
from front_entry import serve
from gateway.app.config import parse_config
from gateway.auth.agents import Agent
from gateway.call.exchange_limits import ExchangeShares
from gateway.call.hold_settings import HoldSettings, TaskOffer
from gateway.call.limiter import WindowLimiter
from gateway.call.metrics import Metrics
from gateway.call.request import Exchange, RequestHead
from gateway.call.settings import ProxySettings
from gateway.errors import ConnectionLostError, GatewayError
from gateway.hold.request_state import StateSealer
from gateway.hold.running import Forwarder
from gateway.policy.compiling import compile_policy
from gateway.policy.limits import Windows
from gateway.proxy import Proxy
from gateway.tools.catalogue import Catalogue
from gateway.tools.pins import Pins
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import protocol
from replacing import replace

CONFIG = """
servers: {notes: {url: "http://127.0.0.1:1/"}, wiki: {url: "http://127.0.0.1:2/"}}
approvers: [{name: alice}]
policy:
  default: allow
  hide: [hidden]
  tools:
    denied: {action: deny}
    held: {action: require_approval}
    limited: {rate_limit: {max: 2, window: 60}}
    over: {rate_limit: {max: 1, window: 60, on_exceed: require_approval}}
    tested: {when: "args.n > 1", action: deny}
"""
TOOLS = ["get_note", "denied", "held", "limited", "over", "tested", "hidden", "mirrored"]
MIRRORED = {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}}
#: The turns of the event loop in which an exchange ends unless it waits for a person.
TURNS = 100
STREAM = (b'data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n', b"data: {}\n\n")
HTML, EVENTS = {"Content-Type": "text/html", "Set-Cookie": "c"}, {"content-type": "text/event-stream"}


async def stream():
    for chunk in STREAM:
        yield chunk


class Server:
    """A server that notes what it is sent, and answers as the current step says."""

    def __init__(self):
        self.sent = []
        self.answers = "result"
        self.has_line = True
        self.closed_replies = 0

    async def send(self, verb, body, headers):
        answered = self.answer(verb, body, headers)
        if isinstance(answered, GatewayError):
            raise answered
        return answered

    def line(self):
        return self if self.has_line else None

    def post(self, body, headers, receive):
        receive(self.answer("POST", body, headers))

    def release(self):
        pass

    def knows(self, _headers):
        return None

    def answer(self, verb, body, headers):
        frame = json.loads(body) if body else {}
        self.sent.append((verb, body, dict(headers)))
        match frame.get("method"):
            case "initialize":
                return self.reply(frame, {"capabilities": {}}, {"Mcp-Session-Id": str(frame["id"])})
            case "tools/list":
                tools = [
                    {"name": name, "inputSchema": MIRRORED if name == "mirrored" else {}} for name in TOOLS
                ]
                return self.reply(frame, {"tools": tools})
            case "server/discover":
                return self.reply(frame, {"capabilities": {}})
        match self.answers:
            case "stream":
                return Reply(status=200, headers=EVENTS, chunks=stream(), close=self.count_closed)
            case "lost":
                return ConnectionLostError()
            case int(status):
                return Reply(status=status, headers=HTML, body=b"<p>", close=self.count_closed)
        return self.reply(frame, {"content": []}, {"Server": "x", "Retry-After": "1"})

    def reply(self, frame, result, headers=None):
        body = json.dumps({"jsonrpc": "2.0", "id": frame.get("id"), "result": result}).encode()
        return replace_close(frame_reply(body, headers=headers), self.count_closed)

    def count_closed(self):
        self.closed_replies += 1


def replace_close(reply, close):
    return Reply(status=reply.status, headers=reply.headers, body=reply.body, close=close)


class Gateway:
    """A proxy with its store, in front of two servers, at a time that stands still."""

    def __init__(self, enter):
        self.enter = enter
        self.servers = {"notes": Server(), "wiki": Server()}
        self.now = 1000.0
        config, numbers = parse_config(CONFIG, {}, str), itertools.count()
        self.store, sealer = MemoryStore(), StateSealer([b"k" * 32])

        def clock():
            return self.now

        service = ApprovalService(
            self.store, Directory([Approver(name="alice")]), clock=clock, wall=clock, monotonic=clock
        )
        self.catalogue = Catalogue(clock, Pins(self.store, ()), lambda *_: None)
        self.catalogue.configure(self.servers, {"notes": {}, "wiki": {}})
        self.metrics = Metrics()
        self.proxy = Proxy(
            settings=ProxySettings(
                policy=compile_policy(config), upstreams=self.servers,
                identities=dict.fromkeys(self.servers, "it"), addresses=dict.fromkeys(self.servers, "there"),
                holds=HoldSettings(clients={}, hold_for=0.0, tasks=TaskOffer.ALL), shares=ExchangeShares(requests=2),
                may_use=lambda *_: True,
            ),
            service=service, state=self.store, catalogue=self.catalogue, limiter=WindowLimiter(self.store, Windows()),
            forwarder=Forwarder(service, self.catalogue.mark_stale), metrics=self.metrics,
            new_id=lambda: CallId(f"hold_{next(numbers):026}"), sealer=lambda: sealer,
        )  # fmt: skip
        self.unclosed = []

    async def open_sessions(self):
        """Let each agent open a session, and list the tools of one server."""
        for agent in AGENTS.values():
            opening = {"jsonrpc": "2.0", "id": agent.name, "method": "initialize", "params": {}}
            await self.exchange(
                Exchange(agent=agent, server="notes", verb="POST", body=dump(opening), head=RequestHead())
            )
        await self.catalogue.refresh("notes")

    async def exchange(self, exchange, *, keep_open=False):
        """Return all that the client is sent, or None if its call waits; the client then leaves."""
        client = asyncio.ensure_future(self._exchange(exchange, keep_open=keep_open))
        for _ in range(TURNS):  # also for the tasks that go on behind the answer
            await asyncio.sleep(0)
        if client.done():
            return client.result()
        client.cancel()
        await asyncio.wait([client])
        return None

    async def _exchange(self, exchange, *, keep_open):
        reply = await self.enter(self.proxy, exchange)
        body = reply.body or b""
        try:
            async with aclosing(reply.chunks):
                async for chunk in reply.chunks:
                    body += chunk
            await reply.delivered()
        finally:
            if keep_open:
                self.unclosed.append(reply)
            else:
                reply.close()
                reply.close()
        return reply.status, dict(reply.headers), re.sub(rb'"requestState":"[^"]*"', b"", body)

    async def change(self, change):
        match change:
            case "close":
                await self.proxy.close()
            case "stale":
                self.catalogue.mark_stale("notes")
            case "close replies":
                while self.unclosed:
                    self.unclosed.pop().close()
            case "a minute":
                self.now += 61
            case "forget":
                self.proxy._sessions._sessions.clear()
            case ("audit", way):
                self.proxy.adopt(replace(self.proxy.settings, audit_allowed=way))
            case (("notes" | "wiki") as server, answers, has_line):
                self.servers[server].answers, self.servers[server].has_line = answers, has_line

    def effects(self):
        """Return everything that exchanges may have changed."""
        delivered = self.proxy._held_answers.delivered
        return {
            "sent": {
                name: (hide_random(server.sent), server.closed_replies)
                for name, server in self.servers.items()
            },
            "events": self.store._events,
            "held": hide_random(self.store._calls),
            "hits": self.store._hits,
            "metrics": self.metrics.calls,
            "exchanges": self.proxy._exchange_limits._open,
            "delivered": list(delivered._delivered.items()),
            "sessions": [
                (key, session.answered_at) for key, session in self.proxy._sessions._sessions.items()
            ],
            "stale": self.catalogue._stale,
        }


def hide_random(value):
    """Return the text of a value without the ids that the gateway draws for each process and each ping."""
    return re.sub(r"okayed-[0-9a-f]{16}|runner='[0-9a-f]{32}'", "", repr(value))


def dump(frame):
    return json.dumps(frame).encode()


AGENTS = {
    name: Agent(name=name, servers=servers)
    for name, servers in (("ann", None), ("bob", frozenset({"notes"})))
}
REVISIONS = [None, "2025-11-25", "2026-07-28", "1999-01-01"]
META = {protocol.META_VERSION: "2026-07-28", protocol.META_CAPABILITIES: {}}
ODD_BODIES = [
    b"{", b"[]", dump({"jsonrpc": "2.0", "id": 4, "method": "ping"}), dump({"jsonrpc": "2.0", "method": "tools/call"}),
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_note","name":"denied"}}',
    dump({"jsonrpc": "2.0", "id": 5, "method": "tools/list"}), dump({"jsonrpc": "2.0", "id": 6, "result": {}}),
    dump({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}),
]  # fmt: skip
usual = st.sampled_from
calls = st.fixed_dictionaries({
    "agent": usual(["ann", "ann", "bob"]), "server": usual(["notes", "notes", "notes", "wiki", "none"]),
    "session": usual(["ann", "ann", "bob", None, "unknown"]), "revision": usual([*REVISIONS[1:2] * 3, *REVISIONS]),
    "more": st.dictionaries(usual(["okayed-hold", "okayed-front", "mcp-method", "mcp-name", "last-event-id"]),
                            usual(["tools/call", "get_note", "hold_x"]), max_size=1),
    "tool": usual(["get_note", "get_note", "get_note", *TOOLS, "unlisted", "not a name"]),
    "arguments": usual([{}, {"n": 1}, {"n": 2}, {"N": 1, "n": 1}, None]),
    "params": usual([{}, {}, {"_meta": {"progressToken": 1}}, {"_meta": META}, {"task": {}}, {"requestState": "x"},
                     {"requestState": "okayed.x"}, {"inputResponses": {}}, {"odd": 1}]),
    "keep_open": usual([False, False, False, True]),
})  # fmt: skip
bodies = st.fixed_dictionaries(
    {"body": usual(ODD_BODIES), "agent": usual(["ann", "bob"]), "verb": usual(["POST", "DELETE"])}
)
changes = st.one_of(
    usual(["close", "stale", "close replies", "a minute", "forget"]),
    st.tuples(st.just("audit"), usual(["post", "wait", "off"])),
    st.tuples(
        usual(["notes", "wiki"]), usual(["result", "stream", "lost", 401, 302, 404, 500]), st.booleans()
    ),
)


def build_exchange(step):
    if "body" in step:
        head = RequestHead((("mcp-session-id", step["agent"]),))
        return Exchange(
            agent=AGENTS[step["agent"]], server="notes", verb=step["verb"], body=step["body"], head=head
        )
    session = [] if step["session"] is None else [("mcp-session-id", step["session"])]
    revision = [] if step["revision"] is None else [("mcp-protocol-version", step["revision"])]
    modern = (
        [("mcp-method", "tools/call"), ("mcp-name", step["tool"])] if step["revision"] == "2026-07-28" else []
    )
    arguments = {} if step["arguments"] is None else {"arguments": step["arguments"]}
    params = {"name": step["tool"], **arguments, **step["params"]}
    return Exchange(
        agent=AGENTS[step["agent"]], server=step["server"], verb="POST",
        body=dump({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}),
        head=RequestHead((("accept", "*/*"), *session, *revision, *modern, *step["more"].items())),
    )  # fmt: skip


USUAL = {
    "agent": "ann", "server": "notes", "session": "ann", "revision": "2025-11-25", "more": {}, "tool": "get_note",
    "arguments": {"n": 1}, "params": {}, "keep_open": False,
}  # fmt: skip


async def handle(proxy, exchange):
    return await proxy.handle(exchange)


async def compare(steps):
    both = [Gateway(handle), Gateway(serve)]
    for gateway in both:
        await gateway.open_sessions()
    for step in steps:
        if not isinstance(step, dict):
            for gateway in both:
                await gateway.change(step)
            continue
        keep_open = step.get("keep_open", False)
        handled, served = [await one.exchange(build_exchange(step), keep_open=keep_open) for one in both]
        assert served == handled
        assert both[1].effects() == both[0].effects()
    for gateway in both:
        await gateway.change("close replies")
        assert gateway.proxy._exchange_limits._open == {}
    assert both[1].effects() == both[0].effects()


@given(st.lists(st.one_of(calls, calls, calls, bodies, changes), max_size=12))
@example([USUAL, USUAL | {"keep_open": True}, USUAL | {"keep_open": True}, USUAL, "close replies", USUAL])
@example([("notes", "stream", True), USUAL, USUAL])
@example([("notes", 401, True), USUAL, ("notes", 302, True), USUAL, ("notes", "lost", True), USUAL])
@example([("audit", "off"), USUAL, ("audit", "wait"), USUAL, "close", USUAL])
@example([USUAL | {"session": "bob"}, USUAL | {"agent": "bob", "server": "wiki"}, "forget", USUAL])
@example([USUAL | {"tool": tool} for tool in [*TOOLS, "limited", "limited", "over", "unlisted"]])
@example(
    [
        USUAL | {"params": {"_meta": META}},
        USUAL | {"more": {"okayed-hold": "hold_x", "okayed-front": "stdio"}},
    ]
)
@example(["close", USUAL])
@example([USUAL | {"tool": "mirrored", "session": None, "revision": "2026-07-28", "params": {"_meta": META}}])
@example([USUAL | {"tool": "held"}, USUAL, USUAL | {"tool": "held"}])
def test_an_exchange_answered_at_once_equals_a_handled_one(steps):
    asyncio.run(compare(steps))


async def test_an_allowed_call_is_sent_at_once_and_any_other_is_not():
    gateway = Gateway(serve)
    await gateway.open_sessions()
    others = [
        {"tool": "denied"}, {"tool": "held"}, {"tool": "limited"}, {"tool": "unlisted"}, {"tool": "hidden"}, {"session": "bob"},
        {"params": {"task": {}}}, {"params": {"requestState": "x"}}, {"params": {"odd": 1}}, {"more": {"okayed-hold": "x"}},
        {"server": "none"}, {"server": "wiki"}, {"revision": "1999-01-01"}, {"params": {"_meta": META}},
    ]  # fmt: skip

    def effects():
        """The effects; the order of the sessions is that of their last use, and a handled exchange uses them too."""
        return str(gateway.effects() | {"sessions": len(gateway.proxy._sessions._sessions)})

    before = effects()
    assert [gateway.proxy.at_once(build_exchange(USUAL | other)) for other in others] == [None] * len(others)
    assert effects() == before
    assert gateway.proxy.at_once(build_exchange(USUAL)) is not None
    modern = {"session": None, "revision": "2026-07-28", "params": {"_meta": META}}
    assert gateway.proxy.at_once(build_exchange(USUAL | modern)) is not None


class SilentLine:
    """A line whose reply the test delivers."""

    def __init__(self):
        self.abandoned = self.released = 0

    def post(self, body, headers, receive):
        self.receive = receive

    def release(self):
        self.released += 1

    def abandon(self):
        self.abandoned += 1


async def test_a_call_abandoned_by_its_client_is_counted_no_longer_and_cancelled_once():
    gateway, line = Gateway(serve), SilentLine()
    await gateway.open_sessions()
    gateway.servers["notes"].line = lambda: line
    sending = gateway.proxy.at_once(build_exchange(USUAL))
    sending.start([].append)
    assert sum(gateway.proxy._exchange_limits._open.values()) == 1
    sending.abandon()
    sending.abandon()
    assert line.abandoned == 1
    assert gateway.proxy._exchange_limits._open == {}


async def test_abandoning_an_answered_call_leaves_its_reply_open():
    gateway, line, answers = Gateway(serve), SilentLine(), []
    await gateway.open_sessions()
    gateway.servers["notes"].line = lambda: line
    sending = gateway.proxy.at_once(build_exchange(USUAL))
    sending.start(answers.append)
    line.receive(frame_reply(b"{}"))
    sending.abandon()
    assert line.abandoned == 0
    assert sum(gateway.proxy._exchange_limits._open.values()) == 1
    answers[0].close()
    assert gateway.proxy._exchange_limits._open == {}


async def test_the_line_of_a_call_beyond_the_limit_is_released():
    gateway, line = Gateway(serve), SilentLine()
    await gateway.open_sessions()
    gateway.servers["notes"].line = lambda: line
    most = gateway.proxy.settings.shares.requests
    sent = [gateway.proxy.at_once(build_exchange(USUAL)) for _ in range(most + 2)]
    assert [one is None for one in sent] == [False] * most + [True] * 2
    assert line.released == 2
    assert gateway.metrics.calls == {("notes", "allowed"): most}
    for one in sent[:most]:
        one.abandon()
    assert gateway.proxy._exchange_limits._open == {}


async def test_the_line_of_a_call_that_cannot_be_recorded_is_released(monkeypatch):
    gateway, line = Gateway(serve), SilentLine()
    await gateway.open_sessions()
    gateway.servers["notes"].line = lambda: line
    before = gateway.effects()["events"].copy()

    def fail(_):
        raise StoreError("The store cannot keep up.")

    monkeypatch.setattr(gateway.store, "post_entry", fail)
    assert gateway.proxy.at_once(build_exchange(USUAL)) is None
    assert (line.released, gateway.proxy._exchange_limits._open) == (1, {})
    assert gateway.effects()["events"] == before
