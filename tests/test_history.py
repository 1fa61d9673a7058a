"""Breaks a right history in many ways; the history checker finds each fault."""

import asyncio
import json
from functools import cache

import msgspec
import pytest

import history_checks
from approval_fixtures import Clock, directory, held
from approvals.audit import Checkpoint
from approvals.model import CallId, Decision, Outcome, State
from approvals.service import ApprovalService
from approvals.store.memory.store import MemoryStore
from history import Answer, GivenReview, History, Kill, ReceivedCall, Request
from history_checks import assert_no_faults, find_faults
from linked_events import link_event
from replacing import replace

KEY = b"key"


def arguments(name):
    return json.dumps({"marker": name}).encode()


class Run:
    """A run of one service, with its logs."""

    def __init__(self):
        self.store = MemoryStore(chain_key=KEY)
        self.service = ApprovalService(self.store, directory(), clock=Clock())
        self.requests, self.reviews, self.received, self.kills = [], [], [], []
        self.order = 0

    def next(self):
        self.order += 1
        return self.order

    @property
    def head(self):
        return self.store._events[-1].seq

    async def hold(self, name, needed=1):
        call = held(self.service.clock(), arguments=arguments(name), needed=needed)
        return await self.service.hold(replace(call, id=CallId(f"hold_{name}")))

    async def review(self, call, who, decision, reason=""):
        approver = self.service.directory.by_name(who)
        await self.service.review(call.id, approver, decision, via="api", reason=reason, digest=call.digest)
        self.reviews.append(
            GivenReview(call=call.id, approver=who, decision=decision, acknowledged=True, head=self.head)
        )

    async def send(self, call):
        _, won = await self.service.claim(call.id, lambda _: None)
        assert won
        self.receive("put_user_policy", call.call.arguments)

    def receive(self, tool, given):
        self.received.append(
            ReceivedCall(server="iam", tool=tool, arguments=given, at=self.next(), head=self.head)
        )

    def answer(self, name, answer, call="", text=""):
        self.requests.append(
            Request(
                agent="ci-bot", server="iam", tool="put_user_policy", arguments=arguments(name),
                sent=self.next(), answered=self.next(), answer=answer, call=call and call.id, text=text,
            )
        )  # fmt: skip

    async def all(self):
        done = await self.hold("done", needed=2)
        self.answer("done", Answer.WAITING, done)
        await self.review(done, "alice", Decision.APPROVE)
        await self.review(done, "bob", Decision.APPROVE)
        await self.send(done)
        await self.service.finish(done.id, Outcome(is_error=False, body=b"{}"))
        self.answer("done", Answer.RESULT, text="ran done")
        refused = await self.hold("refused")
        await self.review(refused, "bob", Decision.DENY, "no")
        self.answer("refused", Answer.DENIED, refused)
        left = await self.hold("left")
        await self.service.cancel(left.id, "tired", actor="ci-bot")
        self.answer("left", Answer.NOT_RUN, left)
        again = await self.hold("open")
        self.answer("open", Answer.WAITING, again)
        doubt = await self.hold("doubt")
        await self.review(doubt, "alice", Decision.APPROVE)
        await self.send(doubt)
        self.kills.append(Kill(head=self.head, replica=self.service.replica.id))
        await self.service.record_in_doubt(doubt.id, "cut")
        self.answer("doubt", Answer.IN_DOUBT, doubt)
        self.receive("get_user", b"{}")
        self.receive("get_user", b"{}")
        return History(
            requests=self.requests, reviews=self.reviews, received=self.received, kills=self.kills,
            events=self.store._events, calls=list(self.store._calls.values()), chain_key=KEY,
            heads=[Checkpoint(self.head, self.store._events[-1].hash)],
            acknowledged=[("hold_done", 2), ("hold_open", 1)], free=frozenset({"get_user"}),
        )  # fmt: skip


@cache
def right_history():
    return asyncio.run(Run().all())


def relink(events):
    """Number and link events again, so that only their content is wrong."""
    prev, made = "", []
    for number, event in enumerate(events, 1):
        made.append(link_event(event, number, prev, KEY))
        prev = made[-1].hash
    return made


def change_trail(change):
    """Break the trail: *change* returns the events that stand for an event."""
    events = relink(new for event in right_history().events for new in change(event))
    return replace(right_history(), events=events, heads=())


def remove_event(kind, call, **detail):
    return change_trail(
        lambda event: (
            []
            if (event.kind, event.call) == (kind, call) and detail.items() <= event.detail.items()
            else [event]
        )
    )


def change_detail(kind, call, **detail):
    return change_trail(
        lambda event: [
            replace(event, detail=event.detail | detail)
            if (event.kind, event.call) == (kind, call)
            else event
        ]
    )


def double_event(kind, call):
    return change_trail(lambda event: [event] * (1 + ((event.kind, event.call) == (kind, call))))


def change_actor(kind, call, actor):
    return change_trail(
        lambda event: [replace(event, actor=actor) if (event.kind, event.call) == (kind, call) else event]
    )


def change_row(call_id, **changes):
    calls = [replace(call, **changes) if call.id == call_id else call for call in right_history().calls]
    return replace(right_history(), calls=calls)


def without_row(call_id):
    return replace(right_history(), calls=[call for call in right_history().calls if call.id != call_id])


def change_received(number, **changes):
    log = list(right_history().received)
    log[number] = replace(log[number], **changes)
    return replace(right_history(), received=log)


def add_received(name, at=99, tool="put_user_policy"):
    more = ReceivedCall(server="iam", tool=tool, arguments=arguments(name), at=at)
    return replace(right_history(), received=[*right_history().received, more])


def change_request(number, **changes):
    log = list(right_history().requests)
    log[number] = replace(log[number], **changes)
    return replace(right_history(), requests=log)


def change_events(change):
    return replace(right_history(), events=change(list(right_history().events)))


def respell(call):
    """Return a held call with the same arguments in other bytes."""
    return replace(call, call=msgspec.structs.replace(call.call, arguments=b'{"marker":  "done"}'))


FAULTS = [
    # A forward without its approval.
    (history_checks.find_unapproved_forwards, lambda: add_received("other"), "iam/put_user_policy received other, but no held call has these arguments."),
    (history_checks.find_unapproved_forwards, lambda: change_received(0, arguments=b'{"marker":  "done"}'), "iam/put_user_policy received done, but no held call has these arguments."),
    (history_checks.find_unapproved_forwards, lambda: change_received(0, tool="delete_user"), "iam/delete_user received done, but no held call has these arguments."),
    (history_checks.find_unapproved_forwards, lambda: add_received("open"), "iam/put_user_policy received open, but the trail has no hold.forwarding event for it."),
    (history_checks.find_unapproved_forwards, lambda: replace(right_history(), free=frozenset()), "iam/get_user received None, but no held call has these arguments."),
    (history_checks.find_unapproved_forwards, lambda: change_received(0, head=3), "iam/put_user_policy received done before its hold.forwarding event was committed."),
    (history_checks.find_unapproved_forwards, lambda: change_received(1, head=14), "iam/put_user_policy received doubt after a gateway had put it in doubt."),
    (history_checks.find_unapproved_forwards, lambda: double_event("hold.forwarding", "hold_done"), "hold_done has 2 hold.forwarding events."),
    (history_checks.find_unapproved_forwards, lambda: remove_event("hold.approved", "hold_done"), "hold_done was forwarded without a hold.approved event before."),
    (history_checks.find_unapproved_forwards, lambda: remove_event("hold.review", "hold_done"), "hold_done was forwarded with 1 of 2 approvals by its approvers."),
    (history_checks.find_unapproved_forwards, lambda: change_actor("hold.review", "hold_done", "bob"), "hold_done was forwarded with 1 of 2 approvals by its approvers."),
    (history_checks.find_unapproved_forwards, lambda: change_actor("hold.approved", "hold_done", "eve"), "hold_done was forwarded with 1 of 2 approvals by its approvers."),
    (history_checks.find_unapproved_forwards, lambda: change_detail("hold.approved", "hold_done", digest="0"), "hold_done was approved for other bytes than it holds."),
    (history_checks.find_unapproved_forwards, lambda: replace(right_history(), calls=[respell(right_history().calls[0]), *right_history().calls[1:]]), "hold_done was approved for other bytes than it holds."),
    # A second run.
    (history_checks.find_second_runs, lambda: add_received("done"), "done was received 2 times."),
    (history_checks.find_second_runs, lambda: add_received("done"), "done was received 2 times, but claimed 1 times."),
    (history_checks.find_second_runs, lambda: change_received(1, arguments=b'{"marker":  "done"}'), "done was received 2 times."),
    (history_checks.find_second_runs, lambda: add_received("open"), "open was received 1 times, but claimed 0 times."),
    # A lost decision.
    (history_checks.find_lost_decisions, lambda: remove_event("hold.review", "hold_done"), "alice's approve of hold_done was acknowledged, but it is not in the trail."),
    (history_checks.find_lost_decisions, lambda: remove_event("hold.denied", "hold_refused"), "bob's deny of hold_refused was acknowledged, but it is not in the trail."),
    (history_checks.find_lost_decisions, lambda: replace(right_history(), reviews=[replace(right_history().reviews[0], head=1)]), "alice's approve of hold_done was acknowledged, but it was committed later."),
    (history_checks.find_lost_decisions, lambda: without_row("hold_done"), "alice's approve of hold_done was acknowledged, but the call is not in the store."),
    (history_checks.find_lost_decisions, lambda: change_row("hold_done", reviews=()), "bob's approve of hold_done was acknowledged, but the call does not have it."),
    (history_checks.find_lost_decisions, lambda: change_row("hold_refused", state=State.COMPLETED), "bob's deny of hold_refused was acknowledged, but the call is completed."),
    (history_checks.find_lost_decisions, lambda: change_trail(lambda event: [event, *([replace(event, kind="hold.forwarding")] if event.kind == "hold.denied" else [])]), "hold_refused was denied by bob, but it was forwarded."),
    (history_checks.find_lost_decisions, lambda: change_row("hold_done", state=State.PENDING), "hold_done has enough approvals, but it is pending."),
    # A state that goes back.
    (history_checks.find_states_going_back, lambda: remove_event("hold.review", "hold_done"), "The trail has the versions [1, 3, 4, 5] of hold_done."),
    (history_checks.find_states_going_back, lambda: double_event("hold.review", "hold_done"), "The trail has the versions [1, 2, 2, 3, 4, 5] of hold_done."),
    (history_checks.find_states_going_back, lambda: remove_event("hold.approved", "hold_done"), "hold_done went from pending to forwarding."),
    (history_checks.find_states_going_back, lambda: change_detail("hold.completed", "hold_done", state="approved"), "hold_done went from forwarding to approved."),
    (history_checks.find_states_going_back, lambda: remove_event("hold.pending", "hold_refused"), "hold_refused began as denied."),
    (history_checks.find_states_going_back, lambda: change_detail("hold.pending", "hold_refused", state="approved"), "hold_refused began as approved."),
    (history_checks.find_states_going_back, lambda: remove_event("hold.completed", "hold_done"), "hold_done is completed in version 5, but the trail ends with forwarding in version 4."),
    (history_checks.find_states_going_back, lambda: change_row("hold_left", state=State.PENDING), "hold_left is pending in version 2, but the trail ends with cancelled in version 2."),
    (history_checks.find_states_going_back, lambda: change_row("hold_left", version=1), "hold_left is cancelled in version 1, but the trail ends with cancelled in version 2."),
    (history_checks.find_states_going_back, lambda: without_row("hold_left"), "hold_left is in the trail, but not in the store."),
    (history_checks.find_states_going_back, lambda: change_trail(lambda event: [] if event.call == "hold_left" else [event]), "hold_left is in the store, but not in the trail."),
    (history_checks.find_states_going_back, lambda: replace(right_history(), acknowledged=[("hold_done", 6)]), "Version 6 of hold_done was acknowledged, but the store has version 5."),
    (history_checks.find_states_going_back, lambda: replace(right_history(), acknowledged=[("hold_lost", 1)]), "Version 1 of hold_lost was acknowledged, but the store has no such call."),
    # A broken chain.
    (history_checks.find_broken_chain, lambda: change_events(lambda all_: all_[:3] + all_[4:]), "Event 4 is missing."),
    (history_checks.find_broken_chain, lambda: change_events(lambda all_: all_[1:]), "Event 1 is missing."),
    (history_checks.find_broken_chain, lambda: change_events(lambda all_: all_[:3] + all_[2:]), "Event 3 is in the trail 2 times."),
    (history_checks.find_broken_chain, lambda: change_events(lambda all_: all_[:3] + all_[2:]), "The chain is broken at event 4: event 3 is in its place."),
    (history_checks.find_broken_chain, lambda: change_events(lambda all_: [*all_[:2], replace(all_[2], actor="eve"), *all_[3:]]), "The chain is broken at event 3: its content was changed."),
    (history_checks.find_broken_chain, lambda: change_events(lambda all_: [*all_[:2], all_[3], all_[2], *all_[4:]]), "The chain is broken at event 3: event 4 is in its place."),
    (history_checks.find_broken_chain, lambda: change_events(lambda all_: all_[:-1]), "Event 14 was the head of the trail; now it is gone."),
    (history_checks.find_broken_chain, lambda: replace(change_trail(lambda event: [replace(event, at=1.0)]), heads=right_history().heads), "Event 14 was the head of the trail; now it is another."),
    (history_checks.find_broken_chain, lambda: replace(right_history(), chain_key=b"other"), "The chain is broken at event 1: its content was changed."),
    # An untrue answer.
    (history_checks.find_untrue_answers, lambda: replace(right_history(), received=right_history().received[1:]), "ci-bot was told that done ran, but the server had not received it."),
    (history_checks.find_untrue_answers, lambda: change_received(0, at=99), "ci-bot was told that done ran, but the server had not received it."),
    (history_checks.find_untrue_answers, lambda: change_request(1, text="ran other"), "ci-bot was told that done ran, but with the answer of another call ('ran other')."),
    (history_checks.find_untrue_answers, lambda: change_row("hold_refused", reviews=()), "ci-bot was told that refused was denied, but no approver denied it."),
    (history_checks.find_untrue_answers, lambda: replace(change_request(2, call=""), received=add_received("refused", at=1).received), "ci-bot was told that refused did not run, but the server had received it."),
    (history_checks.find_untrue_answers, lambda: change_request(1, answer=Answer.NOT_RUN, call="hold_done"), "ci-bot was told that done did not run, but the server had received it."),
    (history_checks.find_untrue_answers, lambda: change_request(1, answer=Answer.NOT_RUN), "ci-bot was told that done did not run, but the server had received it."),
    # A false doubt.
    (history_checks.find_false_doubts, lambda: replace(right_history(), kills=()), "hold_doubt was put in doubt, but no gateway was killed while it ran."),
    (history_checks.find_false_doubts, lambda: replace(right_history(), kills=[Kill(head=2)]), "hold_doubt was put in doubt, but no gateway was killed while it ran."),
    (history_checks.find_false_doubts, lambda: replace(right_history(), kills=[Kill(head=14)]), "hold_doubt was put in doubt, but no gateway was killed while it ran."),
    (history_checks.find_false_doubts, lambda: replace(right_history(), kills=[replace(right_history().kills[0], replica="other")]), "hold_doubt was put in doubt, but no gateway was killed while it ran."),
    # A lost hold.
    (history_checks.find_lost_holds, lambda: without_row("hold_open"), "ci-bot was shown hold_open for open, but it is not in the store."),
    (history_checks.find_lost_holds, lambda: change_request(4, agent="other"), "other was shown hold_open for open, but that is another call."),
    (history_checks.find_lost_holds, lambda: change_request(4, call="hold_done"), "ci-bot was shown hold_done for open, but that is another call."),
    (history_checks.find_lost_holds, lambda: change_request(4, expires_at=1_800_001_000.0), "ci-bot was shown hold_open for open with another deadline than the call has."),
    (history_checks.find_lost_holds, lambda: replace(change_request(4, call=""), calls=without_row("hold_open").calls), "ci-bot was shown a hold for open, but no held call has these arguments."),
]  # fmt: skip


def test_a_right_history_has_no_fault():
    assert find_faults(right_history()) == []
    assert_no_faults(right_history())


def test_a_failing_test_lists_every_fault_and_how_to_repeat_the_run():
    with pytest.raises(AssertionError) as failed:
        assert_no_faults(replace(add_received("done"), kills=()), about="with SEED=7")
    assert str(failed.value).splitlines() == [
        "3 faults with SEED=7:",
        "done was received 2 times.",
        "done was received 2 times, but claimed 1 times.",
        "hold_doubt was put in doubt, but no gateway was killed while it ran.",
    ]


@pytest.mark.parametrize(
    ("check", "broken", "sentence"),
    FAULTS,
    ids=[f"{number} {row[0].__name__}" for number, row in enumerate(FAULTS)],
)
def test_a_broken_history_has_its_fault(check, broken, sentence):
    assert sentence in list(check(broken()))


def test_each_check_fails_in_several_ways():
    failing = [row[0] for row in FAULTS]
    assert [check for check in history_checks.CHECKS if failing.count(check) < 3] == []


def test_a_doubt_is_true_after_a_cut_or_when_a_person_gave_the_call_up():
    assert find_faults(replace(change_received(1, cut=True), kills=())) == []
    assert find_faults(replace(change_actor("hold.in_doubt", "hold_doubt", "alice"), kills=())) == []


def test_a_call_that_was_not_sent_may_be_told_as_not_run():
    log = [one for one in right_history().received if one.arguments != arguments("done")]
    answers = [replace(right_history().requests[1], answer=Answer.NOT_RUN, call="hold_done")]
    assert find_faults(replace(right_history(), received=log, requests=answers)) == []
