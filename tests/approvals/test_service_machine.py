"""A state machine that calls two services on one store in every order, and its invariants."""

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from approval_fixtures import Clock, directory, held
from approvals.errors import ApprovalError
from approvals.lifecycle import SETTLED
from approvals.model import Decision, Outcome, State
from approvals.replica import LEASE, OVERDUE, RENEW_EVERY
from approvals.service import ApprovalService
from approvals.store.memory.store import MemoryStore
from approvals.store.sqlite.store import SqliteStore
from replacing import replace

TOOLS = st.sampled_from(["a", "b"])
#: The service that acts.
AT = st.sampled_from([0, 1])
WHO = st.sampled_from(["alice", "bob"])
#: Rules that change nothing before there is a call, or a run, wait for it.
after_a_hold = precondition(lambda machine: machine.has_held)
during_a_run = precondition(lambda machine: machine.runs)
RESULT, FAILURE = Outcome(is_error=False, body=b"{}"), Outcome(is_error=True, body=b"{}")
#: How a run ends.
ENDINGS = {
    "result": lambda service, call_id: service.finish(call_id, RESULT),
    "failure": lambda service, call_id: service.finish(call_id, FAILURE),
    "refused": lambda service, call_id: service.record_not_sent(call_id, "refused"),
    "cut": lambda service, call_id: service.record_in_doubt(call_id, "cut"),
}


class Approvals(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock, self.store = Clock(), self.do(self.open_store())
        self.services = [self.new_service(), self.new_service()]
        self.sent, self.ended, self.deadlines = [], {}, {}
        self.has_held = False
        #: The service of each run; and the runs that may be in doubt although their service lives.
        self.runs, self.doubtful = {}, set()

    async def open_store(self):
        return MemoryStore()

    def new_service(self):
        return ApprovalService(self.store, directory(), clock=self.clock)

    def teardown(self):
        self.do(self.store.close())
        self.loop.close()

    def do(self, job):
        try:
            return self.loop.run_until_complete(job)
        except ApprovalError:
            return None

    def calls(self):
        return self.do(self.store.select(limit=1000)).items

    def each(self, tool):
        return [call for call in self.calls() if call.call.tool == tool]

    @rule(at=AT, tool=TOOLS, needed=st.integers(1, 2))
    def hold(self, at, tool, needed):
        self.has_held = True
        self.do(self.services[at].hold(held(self.clock.now, tool=tool, needed=needed)))

    @after_a_hold
    @rule(at=AT, tool=TOOLS, who=WHO, answer=st.sampled_from(Decision), stale=st.booleans())
    def review(self, at, tool, who, answer, stale):
        approver = self.services[at].directory.by_name(who)
        for call in self.each(tool):
            digest = "0" * 64 if stale else call.digest
            self.do(self.services[at].review(call.id, approver, answer, via="api", reason="r", digest=digest))

    @rule(at=AT, tool=TOOLS)
    def run(self, at, tool):
        """Hold and approve a call at one service and run it at the other."""
        self.hold(1 - at, tool, 1)
        self.review(1 - at, tool, "alice", Decision.APPROVE, stale=False)
        self.claim(at, tool, objects=False)

    @after_a_hold
    @rule(at=AT, tool=TOOLS, objects=st.booleans())
    def claim(self, at, tool, objects):
        for call in self.each(tool):
            claim = self.do(self.services[at].claim(call.id, lambda _: "changed" if objects else None))
            if claim is not None and claim[1]:
                self.sent.append((call.id, claim[0].call.arguments))
                self.runs[call.id] = self.services[at]

    def runs_of(self, tool):
        return [(call, self.runs[call.id]) for call in self.each(tool) if call.id in self.runs]

    @during_a_run
    @rule(tool=TOOLS, how=st.sampled_from(sorted(ENDINGS)))
    def end(self, tool, how):
        """A run ends; a late answer is stored, unless a person has resolved the call."""
        for call, service in self.runs_of(tool):
            ended = self.do(ENDINGS[how](service, call.id))
            del self.runs[call.id]
            if how in {"result", "failure"}:
                resolved = call.state is State.RESOLVED
                assert ended.state is (
                    State.RESOLVED
                    if resolved
                    else State.COMPLETED
                    if how == "result"
                    else State.UPSTREAM_ERROR
                )

    @during_a_run
    @rule(tool=TOOLS)
    def answer_late(self, tool):
        for call, service in self.runs_of(tool):
            self.doubtful.add(call.id)
            self.do(service.record_unanswered(call.id, "late"))

    @during_a_run
    @rule(at=AT, tool=TOOLS, who=WHO)
    def give_up(self, at, tool, who):
        for call in self.each(tool):
            self.doubtful.add(call.id)
            self.do(
                self.services[at].give_up(call.id, self.services[at].directory.by_name(who), "r", via="cli")
            )

    @after_a_hold
    @rule(at=AT, tool=TOOLS, who=WHO)
    def resolve(self, at, tool, who):
        for call in self.each(tool):
            self.do(
                self.services[at].resolve(call.id, self.services[at].directory.by_name(who), "r", via="cli")
            )

    @after_a_hold
    @rule(at=AT, tool=TOOLS)
    def cancel(self, at, tool):
        for call in self.each(tool):
            self.do(self.services[at].cancel(call.id, "tired", actor="ci-bot"))

    @after_a_hold
    @rule(at=AT, tool=TOOLS)
    def collect(self, at, tool):
        for call in self.each(tool):
            if call.state in SETTLED:
                self.do(self.services[at].record_collected(call.id))

    @after_a_hold
    @rule(seconds=st.sampled_from([1, 299, 600, 900]))
    def tick(self, seconds):
        self.pass_time(seconds, self.services)

    def pass_time(self, seconds, living):
        """Move the clock; the living services renew their leases."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + RENEW_EVERY)
            for service in living:
                self.do(service.replica.renew())

    @during_a_run
    @rule(at=AT)
    def suspend(self, at):
        """One service is suspended until after its lease; then it goes on."""
        self.doubtful |= {call_id for call_id, service in self.runs.items() if service is self.services[at]}
        self.pass_time(LEASE + OVERDUE, [self.services[1 - at]])

    @rule(at=AT)
    def sweep(self, at):
        self.do(self.services[at].sweep())

    @after_a_hold
    @rule(at=AT)
    def crash(self, at):
        """One service ends with its runs; another takes its place."""
        self.runs = {id_: service for id_, service in self.runs.items() if service is not self.services[at]}
        self.services[at] = self.new_service()

    @during_a_run
    @rule(at=AT)
    def lose(self, at):
        """One service ends; when its lease is over, the other sweeps."""
        self.crash(at)
        self.pass_time(LEASE + OVERDUE, self.services)
        self.sweep(1 - at)

    @invariant()
    def nothing_is_sent_twice_or_without_enough_people(self):
        assert len({call_id for call_id, _ in self.sent}) == len(self.sent)
        calls = {call.id: call for call in self.calls()}
        for call_id, arguments in self.sent:
            call = calls[call_id]
            assert call.approvals >= call.terms.needed
            assert call.denial is None
            assert arguments == call.call.arguments

    @invariant()
    def no_run_is_in_doubt_while_its_service_lives(self):
        running = [call for call in self.calls() if call.id in self.runs and call.id not in self.doubtful]
        assert [call.state for call in running] == [State.FORWARDING] * len(running)

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
        events = self.do(self.store.events(limit=100_000))
        for call in self.calls():
            versions = [
                event.detail["version"]
                for event in events
                if event.call == call.id and "version" in event.detail
            ]
            assert versions == list(range(1, call.version + 1))

    @invariant()
    def one_call_of_a_key_is_open(self):
        waiting = [
            call.key for call in self.calls() if call.state not in SETTLED or call.state is State.IN_DOUBT
        ]
        assert len(waiting) == len(set(waiting))


class ApprovalsInSqlite(Approvals):
    async def open_store(self):
        self.folder = TemporaryDirectory(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
        return await SqliteStore.open(Path(self.folder.name) / "okayed.db")

    def teardown(self):
        super().teardown()
        self.folder.cleanup()


DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
Approvals.TestCase.settings = settings(
    max_examples=2000 if DEEP else 100, stateful_step_count=60 if DEEP else 30, deadline=None
)
# A failure is found small in memory, too; here that would take minutes.
ApprovalsInSqlite.TestCase.settings = settings(
    Approvals.TestCase.settings,
    max_examples=200 if DEEP else 10,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
TestApprovals = Approvals.TestCase
TestApprovalsInSqlite = ApprovalsInSqlite.TestCase
