"""A state machine that calls the service in every order, and its invariants."""

import asyncio
import os
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from approval_fixtures import Clock, directory, held
from approvals.errors import ApprovalError
from approvals.lifecycle import SETTLED
from approvals.model import Decision, Outcome, State
from approvals.service import ApprovalService
from approvals.store.memory import MemoryStore

TOOLS = st.sampled_from(["a", "b", "c"])


class Approvals(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock, self.store = Clock(), MemoryStore()
        self.sent, self.ended, self.deadlines = [], {}, {}
        self.start()

    def start(self):
        self.service = ApprovalService(self.store, directory(), clock=self.clock)

    def teardown(self):
        self.loop.close()

    def do(self, job):
        try:
            return self.loop.run_until_complete(job)
        except ApprovalError:
            return None

    def calls(self):
        return list(self.store._calls.values())

    def each(self, tool):
        return [call for call in self.calls() if call.call.tool == tool]

    @rule(tool=TOOLS, needed=st.integers(1, 2))
    def hold(self, tool, needed):
        self.do(self.service.hold(held(self.clock.now, tool=tool, needed=needed)))

    @rule(
        tool=TOOLS,
        who=st.sampled_from(["alice", "bob"]),
        answer=st.sampled_from(Decision),
        stale=st.booleans(),
    )
    def review(self, tool, who, answer, stale):
        for call in self.each(tool):
            digest = "0" * 64 if stale else call.digest
            self.do(
                self.service.review(
                    call.id, self.service.directory.by_name(who), answer, via="api", reason="r", digest=digest
                )
            )

    @rule(
        tool=TOOLS,
        how=st.sampled_from(
            [
                "finish",
                "error",
                "refused",
                "cut",
                "crash",
                "objection",
                "late",
                "late error",
                "given up",
                "resolved",
            ]
        ),
    )
    def run(self, tool, how):
        for call in self.each(tool):
            claim = self.do(
                self.service.claim(call.id, lambda _, how=how: "changed" if how == "objection" else None)
            )
            if claim is None or not claim[1]:
                continue
            self.sent.append((call.id, claim[0].call.arguments))
            match how:
                case "finish":
                    self.do(self.service.finish(call.id, Outcome(is_error=False, body=b"{}")))
                case "error":
                    self.do(self.service.finish(call.id, Outcome(is_error=True, body=b"{}")))
                case "refused":
                    self.do(self.service.record_not_sent(call.id, "refused"))
                case "cut":
                    self.do(self.service.record_in_doubt(call.id, "cut"))
                case "late" | "late error":
                    self.do(self.service.record_unanswered(call.id, "late"))
                    self.do(self.service.finish(call.id, Outcome(is_error=how == "late error", body=b"{}")))
                case "given up":
                    self.do(self.service.record_unanswered(call.id, "late"))
                    self.do(self.service.record_in_doubt(call.id, "cut"))
                case "resolved":
                    self.do(self.service.record_unanswered(call.id, "late"))
                    alice = self.service.directory.by_name("alice")
                    self.do(self.service.resolve(call.id, alice, "it ran", via="cli"))
                    self.do(self.service.finish(call.id, Outcome(is_error=False, body=b"{}")))
                case _:
                    self.start()

    @rule(tool=TOOLS)
    def cancel(self, tool):
        for call in self.each(tool):
            self.do(self.service.cancel(call.id, "tired", actor="ci-bot"))

    @rule(tool=TOOLS)
    def collect(self, tool):
        for call in self.each(tool):
            if call.state in SETTLED:
                self.do(self.service.record_collected(call.id))

    @rule(seconds=st.sampled_from([1, 299, 600, 900]))
    def tick(self, seconds):
        self.clock.now += seconds

    @rule()
    def sweep(self):
        self.do(self.service.sweep())

    @rule()
    def crash(self):
        self.start()

    @invariant()
    def nothing_is_sent_twice_or_without_enough_people(self):
        assert len({call_id for call_id, _ in self.sent}) == len(self.sent)
        for call_id, arguments in self.sent:
            call = self.store._calls[call_id]
            assert call.approvals >= call.terms.needed
            assert call.denial is None
            assert arguments == call.call.arguments

    @invariant()
    def what_has_ended_stays(self):
        for call in self.calls():
            if call.id in self.ended:
                assert self.ended[call.id] == replace(call, collected=False, version=0)
            if call.state in SETTLED and call.state is not State.IN_DOUBT:
                self.ended[call.id] = replace(call, collected=False, version=0)

    @invariant()
    def no_deadline_is_ever_later(self):
        for call in self.calls():
            if call.state is State.PENDING:
                assert self.deadlines.setdefault(call.id, call.expires_at) == call.expires_at

    @invariant()
    def every_change_has_one_event(self):
        for call in self.calls():
            versions = [
                event.detail["version"]
                for event in self.store._events
                if event.call == call.id and "version" in event.detail
            ]
            assert versions == list(range(1, call.version + 1))

    @invariant()
    def one_call_of_a_key_is_open(self):
        waiting = [
            call.key for call in self.calls() if call.state not in SETTLED or call.state is State.IN_DOUBT
        ]
        assert len(waiting) == len(set(waiting))


DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
Approvals.TestCase.settings = settings(
    max_examples=2000 if DEEP else 60, stateful_step_count=60 if DEEP else 30, deadline=None
)
TestApprovals = Approvals.TestCase
