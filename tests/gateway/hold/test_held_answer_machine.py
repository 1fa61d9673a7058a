"""A state machine that decides, wakes, cancels, supersedes and disconnects waiting clients in every order."""

import asyncio
import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from approvals.errors import StoreError
from approvals.model import Decision, State
from approvals.store.memory.store import MemoryStore
from gateway.auth.agents import LOCAL
from gateway.call.request import Exchange, RequestHead
from gateway.hold import ladder
from parking_reader import ParkingReader
from simulated_clients import MODERN, OLD, SimulatedGateway
from simulated_time import SimulatedTimeLoop

NOTES = st.sampled_from([1, 2])
#: A revision without event ids, the one with them, and the one with rounds.
REVISIONS = st.sampled_from(["2025-06-18", OLD, MODERN])
ACCEPTS = st.sampled_from(["application/json, text/event-stream", "application/json"])
#: More rounds of the event loop than any step of the gateway takes.
ROUNDS = 60
after_a_call = precondition(lambda machine: machine.readers and not machine.closed)
while_open = precondition(lambda machine: not machine.closed)


class FaultyStore(MemoryStore):
    """A store whose next read fails, or whose claims fail."""

    failing_reads, full = 0, False

    async def version(self, call_id):
        if self.failing_reads:
            self.failing_reads -= 1
            raise StoreError("The disk cannot be read.")
        return await super().version(call_id)

    async def swap(self, old, new, *events):
        if self.full and new.state is State.FORWARDING:
            raise StoreError("The disk is full.")
        await super().swap(old, new, *events)


class HeldAnswers(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = SimulatedTimeLoop()
        self.readers, self.closed = [], False
        self.do(self.start())

    def do(self, job):
        async def settled():
            found = await job
            await self.settle()
            return found

        return self.loop.run_until_complete(settled())

    def act(self, action):
        """Do *action* in the event loop."""

        async def job():
            action()

        self.do(job())

    async def settle(self):
        for _ in range(ROUNDS):
            await asyncio.sleep(0)

    async def start(self):
        self.gateway = SimulatedGateway()
        self.service, self.store = self.gateway.service, self.gateway.store
        self.store.__class__ = FaultyStore
        self.runs, send = [], self.gateway.server.send

        async def record(verb, body, headers):
            frame = json.loads(body) if body else {}
            if frame.get("method") == "tools/call":
                self.runs.append(frame["params"]["arguments"]["n"])
            return await send(verb, body, headers)

        self.gateway.server.send = record
        self.following = asyncio.ensure_future(self.service.wakeups.follow(self.store))

    def post(self, frame, headers, verb="POST"):
        body = b"" if frame is None else json.dumps(frame).encode()
        head = RequestHead(tuple(headers.items()))
        return self.gateway.proxy.begin(
            Exchange(agent=LOCAL, server="notes", verb=verb, body=body, head=head)
        )

    # The clients.

    @while_open
    @rule(n=NOTES, revision=REVISIONS, accepts=ACCEPTS, token=st.booleans())
    def call(self, n, revision, accepts, token):
        number = len(self.readers)
        meta = {"progressToken": number} if token else {}
        headers = {"accept": accepts, "mcp-protocol-version": revision}
        if revision == MODERN:
            headers |= {"mcp-method": "tools/call", "mcp-name": "create_note"}
            meta |= {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            }
        params = {"name": "create_note", "arguments": {"n": n}, "_meta": meta}
        frame = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        resumes = revision == OLD and "event-stream" in accepts
        self.do(self.begin(self.post(frame, headers), n, number, resumes=resumes))

    async def begin(self, begun, n, number, *, resumes):
        reader = ParkingReader(begun)
        reader.resumes = resumes
        reader.n, reader.id, reader.cancelled = n, number, False
        self.readers.append(reader)

    @after_a_call
    @rule(data=st.data())
    def hang_up(self, data):
        reader = data.draw(st.sampled_from(self.readers))
        if not reader.ended and not reader.left:
            self.act(reader.leave)

    @after_a_call
    @rule(data=st.data())
    def cancel(self, data):
        reader = data.draw(st.sampled_from(self.readers))
        reader.cancelled = True
        frame = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": reader.id}}
        self.do(self.post(frame, {"mcp-protocol-version": OLD}))
        assert reader.ended or reader.left or self.closed, "a cancelled request still waits"

    @after_a_call
    @rule(data=st.data())
    def resume_the_stream(self, data):
        reader = data.draw(st.sampled_from(self.readers))
        if reader.left and reader.event_id:
            headers = {
                "accept": "text/event-stream",
                "mcp-protocol-version": OLD,
                "last-event-id": reader.event_id,
            }
            self.do(self.begin(self.post(None, headers, "GET"), reader.n, reader.id, resumes=True))

    # The approver, time, wakeups and faults.

    @after_a_call
    @rule(n=NOTES, decision=st.sampled_from(Decision), is_signalled=st.booleans())
    def review(self, n, decision, is_signalled):
        held = next(
            (one for one in self.select(["pending"]) if json.loads(one.call.arguments)["n"] == n), None
        )
        if held is None:
            return
        waiting, runs = self.waiting(n), self.runs.count(n)
        wake = self.service.wakeups.wake
        self.service.wakeups.wake = wake if is_signalled else lambda _: None
        alice = self.service.directory.by_name("alice")
        self.do(self.service.review(held.id, alice, decision, via="cli", digest=held.digest, reason="so"))
        self.service.wakeups.wake = wake
        if not is_signalled:
            self.do(asyncio.sleep(ladder.BEAT + 1))
        if not waiting:
            assert self.runs.count(n) == runs, "the call ran without a client"
        elif not self.store.failing_reads and not self.store.full:
            assert all(reader.ended for reader in waiting), "a wakeup was lost"

    def select(self, states):
        return self.do(self.store.select(states)).items

    def waiting(self, n):
        return [one for one in self.readers if one.n == n and not (one.ended or one.left or one.cancelled)]

    @rule(seconds=st.sampled_from([1, 5, 10, 16]))
    def pass_time(self, seconds):
        self.do(asyncio.sleep(seconds))

    @rule()
    def wake_all(self):
        self.act(self.service.wakeups.wake_all)

    @rule()
    def fail_a_read(self):
        self.store.failing_reads = 1

    @rule()
    def fill_or_empty_the_disk(self):
        self.store.full = not self.store.full

    @while_open
    @rule(data=st.data(), is_cancelled=st.booleans())
    def stop(self, data, is_cancelled):
        """Stop the gateway; a client may cancel its request in the same moment."""
        reader = data.draw(st.sampled_from(self.readers)) if is_cancelled and self.readers else None

        async def job():
            if reader is not None:
                reader.cancelled = True
                head = RequestHead((("mcp-protocol-version", OLD),))
                exchange = Exchange(agent=LOCAL, server="notes", verb="POST", body=b"", head=head)
                self.gateway.proxy._held_answers.cancel(exchange, reader.id)
            await self.gateway.proxy.close()

        self.do(job())
        self.closed = True
        for one in self.readers:
            lingers = one.task in self.gateway.proxy.lingering
            assert one.ended or one.left or (lingers and one.resumes and not one.cancelled)

    # The promises.

    @invariant()
    def every_client_gets_one_response_at_most_and_the_last_byte_after_it(self):
        for reader in self.readers:
            assert reader.problems == []
            assert len(reader.responses) <= 1
            assert not reader.ended or self.closed or len(reader.responses) == 1
            if reader.parked is None and not reader.left and reader.task.done():
                reader.task.result()

    @invariant()
    def a_call_runs_once(self):
        assert len(self.runs) == len(set(self.runs)) or len(self.select(["completed"])) >= 2

    @invariant()
    def only_open_requests_are_registered(self):
        still_open = sum(not (one.ended or one.left) for one in self.readers)
        service, context = self.service, self.gateway.proxy._held_answers._context
        assert len(context.wheel) <= still_open
        assert sum(map(len, service.wakeups.listening.values())) <= still_open
        assert sum(service.presence.clients.values()) == still_open

    def teardown(self):
        self.do(asyncio.sleep(60))
        self.act(self.gateway.proxy.end_lingering)
        self.do(asyncio.sleep(60))
        for reader in self.readers:
            assert reader.ended or reader.left, "a client got no answer"
        answers = self.gateway.proxy._held_answers
        waits, context = answers._waits, answers._context
        left = [
            *waits._waits, *waits._by_call, *waits.lingering, *context.wheel._slots, *context.checks.tasks,
            *context.checks._due, *self.service.wakeups.listening, *self.service.presence.clients, *self.service.running,
        ]  # fmt: skip
        self.following.cancel()
        self.do(self.store.close())
        self.loop.close()
        assert left == []


TestHeldAnswers = HeldAnswers.TestCase
TestHeldAnswers.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
