"""The life of a held call: on both stores, with one service and with two in turn, and under concurrency."""

import asyncio
from functools import partial

import pytest

from approval_fixtures import Clock, directory, held
from approvals import lifecycle
from approvals.clock import EffectiveClock
from approvals.errors import (
    AlreadyDecided,
    IllegalTransition,
    NotAnApprover,
    NotRevealed,
    OwnRequest,
    QuotaExceeded,
    ReasonNeeded,
    StaleView,
    StoreError,
    UnknownCall,
)
from approvals.identity import Directory
from approvals.model import Approver, Decision, Outcome, State
from approvals.quotas import Quotas
from approvals.replica import LEASE, MARGIN, OVERDUE, RENEW_EVERY
from approvals.reviews import MAX_REASON
from approvals.runs import RUNNER_LOST, STORE_FAILED
from approvals.service import ApprovalService
from approvals.store.memory.store import MemoryStore
from approvals.store.sqlite.store import SqliteStore
from hang import HANG
from replacing import replace
from service_pair import ServicePair

DONE = Outcome(is_error=False, body=b'{"content":[]}')


def fine(_):
    return None


@pytest.fixture(params=["memory", "sqlite", "two on memory", "two on sqlite"])
async def service(request, tmp_path):
    path, key = tmp_path / "h.db", b"key"  # under a key, each change is checked against the trail
    store = MemoryStore() if request.param.endswith("memory") else await SqliteStore.open(path, chain_key=key)
    clock = Clock()
    services = [ApprovalService(store, directory(), clock=clock) for _ in range(2)]
    follows = [asyncio.ensure_future(one.wakeups.follow(store)) for one in services]
    yield ServicePair(*services) if request.param.startswith("two") else services[0]
    for follow in follows:
        follow.cancel()
    await store.close()


async def hold(service, **changes):
    return await service.hold(held(service.clock.now, **changes))


async def review(service, call, answer=Decision.APPROVE, who="alice", **more):
    approver = service.directory.by_name(who)
    return await service.review(call.id, approver, answer, **{"via": "inbox", "digest": call.digest} | more)


async def approved(service, **changes):
    call = await hold(service, **changes)
    return await review(service, call)


async def kinds(service):
    return [event.kind for event in await service.store.events()]


async def test_a_hold_is_stored_with_its_event(service):
    call = await hold(service)
    assert await service.get(call.id) == call
    assert await kinds(service) == ["hold.pending"]


async def test_a_repeated_call_joins_the_open_one(service):
    first = await hold(service)
    assert (await hold(service)).id == first.id
    assert (await service.store.find(first.key)).id == first.id
    assert await kinds(service) == ["hold.pending"]


async def test_many_identical_calls_at_once_are_one_held_call(service):
    calls = await asyncio.gather(*(hold(service) for _ in range(20)))
    assert len({call.id for call in calls}) == 1
    assert len((await service.store.select()).items) == 1


async def test_an_overdue_twin_makes_room_before_any_sweep(service):
    first = await hold(service)
    service.clock.now = first.expires_at
    assert not lifecycle.can_join(first, service.clock())
    second = await hold(service)
    assert (second.id != first.id, second.twin) == (True, first.id)
    assert (await service.get(first.id)).state is State.EXPIRED


async def test_the_number_of_open_calls_of_an_agent_is_limited(service):
    service.quotas = Quotas(open_per_agent=2, open=3)
    for n in range(2):
        await hold(service, tool=f"t{n}")
    with pytest.raises(QuotaExceeded):
        await hold(service, tool="t2")
    await hold(service, agent="other")
    with pytest.raises(QuotaExceeded, match="Too many calls are already"):
        await hold(service, agent="third")


async def test_a_burst_of_calls_does_not_exceed_the_quota(service):
    holds = [hold(service, tool=f"t{n}") for n in range(service.quotas.open_per_agent + 9)]
    told = await asyncio.gather(*holds, return_exceptions=True)
    assert sum(isinstance(one, QuotaExceeded) for one in told) == 9
    assert len((await service.store.select()).items) == service.quotas.open_per_agent


@pytest.mark.parametrize(
    ("changes", "given", "error"),
    [
        ({}, {"who": "eve"}, NotAnApprover),
        ({"owner": "alice"}, {}, OwnRequest),
        ({}, {"digest": "0" * 64}, StaleView),
        ({}, {"digest": ""}, StaleView),
        ({"arguments": b'{"password": "hunter2"}'}, {}, NotRevealed),
        ({"extra_params": b'{"_meta": {"token": "abc"}}'}, {}, NotRevealed),
        ({}, {"answer": Decision.DENY}, ReasonNeeded),
        ({}, {"answer": Decision.DENY, "reason": " \n"}, ReasonNeeded),
    ],
)
async def test_a_review_that_is_not_allowed_is_refused_and_audited(service, changes, given, error):
    call, given = await hold(service, **changes), dict(given)
    who = given.pop("who", "alice")
    approver = service.directory.by_name(who) or Approver(name=who)
    with pytest.raises(error):
        await service.review(
            call.id,
            approver,
            given.pop("answer", Decision.APPROVE),
            **{"via": "api", "digest": call.digest} | given,
        )
    assert (await service.get(call.id)).state is State.PENDING
    refused = (await service.store.events())[-1]
    assert (refused.kind, refused.actor, refused.detail["why"]) == ("review.refused", who, error.__name__)


async def test_a_person_who_revealed_the_hidden_values_may_approve_and_another_may_not(service):
    call = await hold(service, arguments=b'{"password": "hunter2"}')
    alice = service.directory.by_name("alice")
    seen = await service.reveal(call.id, alice, via="cli")
    assert seen.revealed == ("alice",)
    assert (await service.reveal(call.id, alice, via="cli")).version == seen.version
    with pytest.raises(NotRevealed):
        await review(service, call, who="bob")
    assert (await review(service, call)).state is State.APPROVED


async def test_hidden_values_are_revealed_only_to_approvers_of_the_call(service):
    call = await hold(service, arguments=b'{"password": "hunter2"}', owner="alice")
    for who, error in (
        (Approver(name="eve"), NotAnApprover),
        (service.directory.by_name("alice"), OwnRequest),
    ):
        with pytest.raises(error):
            await service.reveal(call.id, who, via="api")
    assert (await service.get(call.id)).revealed == ()


async def test_a_denial_needs_no_reveal_and_no_digest(service):
    call = await hold(service, arguments=b'{"password": "hunter2"}')
    assert (await review(service, call, Decision.DENY, reason="no", digest="")).state is State.DENIED


async def test_an_unknown_call_is_not_found(service):
    with pytest.raises(UnknownCall):
        await service.review("hold_none", service.directory.by_name("alice"), Decision.APPROVE, via="api")
    with pytest.raises(UnknownCall):
        await service.get("hold_none")


async def test_an_approver_who_loses_the_role_loses_it_at_once(service):
    call = await hold(service)
    alice = service.directory.by_name("alice")
    service.directory = Directory([])
    with pytest.raises(NotAnApprover):
        await service.review(call.id, alice, Decision.APPROVE, via="api", digest=call.digest)


async def test_a_long_reason_is_cut_between_characters(service):
    call = await hold(service)
    denied = await review(service, call, Decision.DENY, reason="é" * 4000)
    assert len(denied.denial.reason.encode()) <= MAX_REASON
    assert set(denied.denial.reason) == {"é"}


async def test_one_of_many_concurrent_reviews_decides_and_the_others_are_refused(service):
    people = [Approver(name=f"p{n}") for n in range(40)]
    service.directory = Directory(people)
    call = held(service.clock.now)
    call = await service.hold(replace(call, terms=replace(call.terms, approvers=service.directory.names)))

    async def answer(n):
        verdict = Decision.APPROVE if n % 2 else Decision.DENY
        return await service.review(call.id, people[n], verdict, via="api", reason="r", digest=call.digest)

    results = await asyncio.gather(*(answer(n) for n in range(40)), return_exceptions=True)
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert sum(isinstance(result, AlreadyDecided) for result in results) == 39
    decided = [kind for kind in await kinds(service) if kind in ("hold.approved", "hold.denied")]
    assert len(decided) == 1


async def test_a_repeated_answer_changes_nothing_even_after_the_end(service):
    call = await approved(service)
    assert await review(service, call) == call
    claimed, _ = await service.claim(call.id, fine)
    await service.finish(claimed.id, DONE)
    after = await review(service, call)
    assert (after.state, len(after.reviews)) == (State.COMPLETED, 1)


async def test_exactly_one_of_many_claims_wins(service):
    call = await approved(service)
    claims = await asyncio.gather(*(service.claim(call.id, fine) for _ in range(50)))
    assert sum(won for _, won in claims) == 1
    await service.sweep()  # the losers must not have released the winner's claim
    assert (await service.get(call.id)).state is State.FORWARDING
    await service.finish(call.id, DONE)
    assert (await kinds(service)).count("hold.forwarding") == 1


async def test_a_claim_overtaken_by_another_does_not_win(service):
    """The other claim commits between this claim's decision and its commit."""
    call = await approved(service)
    overtaken = service.store.swap
    other = []

    async def overtaking(old, new, *events):
        service.store.swap = overtaken
        other.append(await service.claim(call.id, fine))
        await overtaken(old, new, *events)

    service.store.swap = overtaking
    found, won = await service.claim(call.id, fine)
    assert ([won for _, won in other], found.state, won) == ([True], State.FORWARDING, False)
    assert service.running[call.id] == 1
    await service.finish(call.id, DONE)
    assert not service.running


async def test_a_claim_whose_commit_fails_is_released(service):
    call = await approved(service)
    swap = service.store.swap

    async def full(old, new, *events):
        raise StoreError("The disk is full.")

    service.store.swap = full
    with pytest.raises(StoreError):
        await service.claim(call.id, fine)
    service.store.swap = swap
    assert not service.running
    assert (await service.get(call.id)).state is State.APPROVED
    assert (await service.claim(call.id, fine))[1] is True


@pytest.mark.parametrize("same", [slice(0, 8), slice(0, 32), slice(56, 64), slice(32, 64)])
async def test_a_digest_that_matches_only_in_part_is_refused(service, same):
    call = await hold(service)
    given = ["0" if digit != "0" else "1" for digit in call.digest]
    given[same] = call.digest[same]
    for digest in ("".join(given), call.digest[same]):
        with pytest.raises(StaleView):
            await review(service, call, digest=digest)
    assert (await service.get(call.id)).state is State.PENDING


@pytest.mark.parametrize("state", ["pending", "denied", "completed"])
async def test_only_an_approved_call_can_be_claimed(service, state):
    call = await hold(service)
    if state == "denied":
        await review(service, call, Decision.DENY, reason="no")
    if state == "completed":
        await review(service, call)
        await service.claim(call.id, fine)
        await service.finish(call.id, DONE)
    found, won = await service.claim(call.id, fine)
    assert (found.state, won) == (state, False)


@pytest.mark.parametrize(
    ("late", "state"), [(-0.001, State.FORWARDING), (0, State.EXPIRED), (0.001, State.EXPIRED)]
)
async def test_an_approval_can_be_claimed_before_its_deadline_only(service, late, state):
    call = await approved(service)
    service.clock.now = call.expires_at + late
    assert (await service.claim(call.id, fine))[0].state is state


async def test_the_deadline_may_pass_while_a_claim_waits_for_the_store(service, monkeypatch):
    call, get = await approved(service), service.store.get

    async def slow(call_id):
        found = await get(call_id)
        service.clock.now = call.expires_at
        return found

    monkeypatch.setattr(service.store, "get", slow)
    found, won = await service.claim(call.id, fine)
    assert (found.state, won) == (State.EXPIRED, False)


async def test_an_objection_voids_an_approval(service):
    call = await approved(service)
    found, won = await service.claim(call.id, lambda _: "the tool changed")
    assert (found.state, found.note, won) == (State.VOIDED, "the tool changed", False)


@pytest.mark.parametrize(
    ("end", "state"),
    [(lambda s, c: s.finish(c, DONE), State.COMPLETED), (lambda s, c: s.finish(c, Outcome(is_error=True, body=b"{}")), State.UPSTREAM_ERROR),
     (lambda s, c: s.record_not_sent(c, "refused"), State.NOT_SENT), (lambda s, c: s.record_in_doubt(c, "cut"), State.IN_DOUBT)],
)  # fmt: skip
async def test_a_run_ends_with_its_outcome_and_is_released(service, end, state):
    call = await approved(service)
    await service.claim(call.id, fine)
    assert (await end(service, call.id)).state is state
    assert not service.running


def runner(service, call):
    """Return the service that runs a call: one of a pair, or the only one."""
    return next(one for one in getattr(service, "services", [service]) if call.id in one.running)


def another(service):
    """Return another replica on the same store."""
    return ApprovalService(service.store, directory(), clock=service.clock)


async def let_sweep(replica, seconds):
    """Let a replica sweep every second."""
    for _ in range(int(seconds)):
        replica.clock.now += 1
        await replica.sweep()


async def test_a_call_of_a_lost_runner_is_in_doubt_exactly_once(service):
    call, other = await running(service), another(service)
    await let_sweep(other, LEASE + OVERDUE - 1)
    assert (await other.get(call.id)).state is State.FORWARDING
    service.clock.now += 1
    await asyncio.gather(*(replica.sweep() for replica in (other, another(service), other)))
    found = await other.get(call.id)
    assert (found.state, found.note) == (State.IN_DOUBT, RUNNER_LOST)
    assert (await kinds(other)).count("hold.in_doubt") == 1
    assert (await other.claim(call.id, fine))[1] is False


async def test_a_call_of_a_live_runner_is_never_put_in_doubt_by_another_replica(service):
    call, other = await running(service), another(service)
    for _ in range(20):
        service.clock.now += RENEW_EVERY
        await service.sweep()
        await other.sweep()
    assert (await service.finish(call.id, DONE)).state is State.COMPLETED


async def suspend(service, _monkeypatch):
    """Suspend every process for an hour."""
    service.clock.now += 3600


async def fail_store(service, monkeypatch):
    """Let the store fail for an hour, until just before a lease would end."""
    replica, until = service.replica, service.clock.now + 3600
    monkeypatch.setattr(service.store, "renew_replica", failing)
    while service.clock.now < until:
        service.clock.now += RENEW_EVERY
        with pytest.raises(StoreError):
            await replica.renew()
    monkeypatch.undo()


async def failing(*_):
    raise StoreError("The disk is full.")


@pytest.mark.parametrize("delay", [suspend, fail_store])
@pytest.mark.parametrize("overdue", [0, 1, OVERDUE - 1])
async def test_replicas_that_could_not_renew_their_leases_keep_their_runs(
    service, monkeypatch, delay, overdue
):
    call, other = await running(service), another(service)
    await other.sweep()
    await delay(service, monkeypatch)
    await other.sweep()
    service.clock.now += overdue
    await other.sweep()
    await service.sweep()
    await let_sweep(other, LEASE - 1)
    assert (await other.get(call.id)).state is State.FORWARDING
    await let_sweep(other, OVERDUE + 1)
    assert (await other.get(call.id)).state is State.IN_DOUBT


async def test_replicas_that_were_suspended_for_less_than_a_lease_keep_their_runs(service):
    other = another(service)
    call = await running(service)
    service.clock.now += RENEW_EVERY - 1
    await other.sweep()
    service.clock.now += LEASE - 1
    await other.sweep()
    await service.sweep()
    assert (await other.get(call.id)).state is State.FORWARDING


async def test_a_replica_that_is_suspended_in_its_sweep_loses_no_run(service):
    call, other = await running(service), another(service)
    await let_sweep(other, OVERDUE)
    expired = other.store.due

    async def suspended(now):
        service.clock.now += LEASE + OVERDUE
        return await expired(now)

    other.store.due = suspended
    await other.sweep()
    assert (await other.get(call.id)).state is State.FORWARDING


def asleep():
    return 1000.0


async def test_a_call_claimed_after_the_machine_slept_is_not_in_doubt(service):
    """On Linux the monotonic clock stands still while the machine sleeps."""
    wall = Clock()
    a, b = (
        ApprovalService(service.store, directory(), clock=EffectiveClock(wall, asleep), monotonic=asleep)
        for _ in "ab"
    )
    await a.sweep()
    await b.sweep()
    wall.now += 3600
    service.clock.now = wall.now
    call = await approved(service)
    await a.claim(call.id, fine)
    await b.sweep()
    assert (await b.get(call.id)).state is State.FORWARDING
    assert a.may_send(call.id)
    wall.now += 3600
    assert not a.may_send(call.id), "the claim was made before the machine slept again"


async def test_a_call_of_a_stopped_runner_is_in_doubt_at_the_next_sweep(service):
    call, other = await running(service), another(service)
    await runner(service, call).replica.end()
    await other.sweep()
    assert (await other.get(call.id)).state is State.IN_DOUBT


@pytest.mark.parametrize("outcome", [DONE, Outcome(is_error=True, body=b"{}")])
async def test_the_late_answer_of_a_runner_that_was_taken_for_lost_is_accepted(service, outcome):
    call, other = await running(service), another(service)
    await let_sweep(other, LEASE + OVERDUE)
    assert (await other.get(call.id)).state is State.IN_DOUBT
    found = await service.finish(call.id, outcome)
    assert (found.outcome, found.note, found == await other.get(call.id)) == (outcome, "", True)


async def test_only_the_runner_can_end_a_run(service):
    call, other = await running(service), another(service)
    with pytest.raises(IllegalTransition):
        await other.finish(call.id, DONE)
    for end in (other.record_not_sent, other.record_in_doubt, other.record_unanswered):
        assert (await end(call.id, "why")).state is State.FORWARDING
    assert (await service.finish(call.id, DONE)).state is State.COMPLETED


async def test_one_of_two_replicas_claims_a_call(service):
    call, other = await approved(service), another(service)
    claims = await asyncio.gather(*(replica.claim(call.id, fine) for replica in (service, other) * 10))
    assert sum(won for _, won in claims) == 1
    assert {found.runner for found, _ in claims} == {next(found.runner for found, won in claims if won)}


async def test_a_run_that_ended_without_a_result_is_put_in_doubt_by_its_own_replica(service):
    call = await running(service)
    service.store.swap, swap = unwritable, service.store.swap
    with pytest.raises(StoreError):
        await service.finish(call.id, DONE)
    service.store.swap = swap
    await service.sweep()
    found = await service.get(call.id)
    assert (found.state, found.note) == (State.IN_DOUBT, STORE_FAILED)


async def unwritable(old, new, *events):
    raise StoreError("The disk is full.")


async def test_a_claimed_call_may_be_sent_only_while_the_lease_surely_lasts(service):
    call = await running(service)
    assert service.may_send(call.id)
    service.clock.now += LEASE - MARGIN
    await service.sweep()
    assert not service.may_send(call.id), "another replica may have put it in doubt before this sweep"
    assert (await service.record_not_sent(call.id, "suspended")).state is State.NOT_SENT
    assert not service.send_before


async def test_a_claim_after_a_long_pause_renews_the_lease_first(service):
    await service.sweep()
    call = await approved(service)
    service.clock.now += LEASE + OVERDUE
    await service.claim(call.id, fine)
    await another(service).sweep()
    assert service.may_send(call.id)
    assert (await service.get(call.id)).state is State.FORWARDING


async def test_a_call_in_doubt_is_resolved_by_an_approver_with_a_reason(service):
    call = await approved(service)
    await service.claim(call.id, fine)
    alice = service.directory.by_name("alice")
    with pytest.raises(AlreadyDecided, match="not in doubt"):
        await service.resolve(call.id, alice, "it ran", via="inbox")
    await service.record_in_doubt(call.id, "cut")
    with pytest.raises(ReasonNeeded):
        await service.resolve(call.id, alice, " ", via="inbox")
    with pytest.raises(NotAnApprover):
        await service.resolve(call.id, Approver(name="eve"), "it ran", via="inbox")
    assert not (await service.record_collected(call.id)).collected
    assert (await service.resolve(call.id, alice, "it ran", via="inbox")).note == "alice: it ran"


async def running(service):
    call = await approved(service)
    await service.claim(call.id, fine)
    return call


async def test_a_running_call_is_given_up_by_an_approver_with_a_reason(service):
    call = await approved(service)
    alice = service.directory.by_name("alice")
    with pytest.raises(AlreadyDecided, match="approved, not running"):
        await service.give_up(call.id, alice, "it hangs", via="cli")
    await service.claim(call.id, fine)
    with pytest.raises(ReasonNeeded):
        await service.give_up(call.id, alice, " ", via="cli")
    with pytest.raises(NotAnApprover):
        await service.give_up(call.id, Approver(name="eve"), "it hangs", via="cli")
    given_up = await service.give_up(call.id, alice, "it hangs", via="cli")
    assert (given_up.state, given_up.note) == (State.IN_DOUBT, "alice gave it up: it hangs")
    event = (await service.store.events(call=call.id))[-1]
    assert (event.kind, event.actor, event.detail["reason"]) == ("hold.in_doubt", "alice", "it hangs")


@pytest.mark.parametrize(
    ("end", "state"),
    [(lambda s, c: s.finish(c, DONE), State.COMPLETED), (lambda s, c: s.finish(c, Outcome(is_error=True, body=b"{}")), State.UPSTREAM_ERROR),
     (lambda s, c: s.record_not_sent(c, "refused"), State.NOT_SENT), (lambda s, c: s.record_in_doubt(c, "cut"), State.IN_DOUBT)],
)  # fmt: skip
async def test_a_run_that_was_given_up_ends_by_the_truth_that_its_runner_learns_and_is_released(
    service, end, state
):
    call = await running(service)
    await service.record_unanswered(call.id, "late")
    await service.sweep()
    assert service.running
    assert (await end(service, call.id)).state is state
    assert not service.running


async def test_after_a_resolution_a_late_answer_is_only_an_event(service):
    call = await running(service)
    alice = service.directory.by_name("alice")
    await service.give_up(call.id, alice, "it hangs", via="cli")
    found = await service.resolve(call.id, alice, "it did not run", via="cli")
    service.wall = lambda: service.clock() - 600
    assert await service.finish(call.id, DONE) == found == await service.get(call.id)
    events = await service.store.events(call=call.id)
    last = events[-1]
    assert (last.kind, last.detail["failed"], last.at) == ("answer.late", False, service.wall())
    assert not service.running


async def test_cancelling_ends_calls_that_were_not_sent_and_no_others(service):
    call = await hold(service)
    assert (await service.cancel(call.id, "tired", actor="ci-bot")).state is State.CANCELLED
    assert (await service.cancel(call.id, "tired", actor="ci-bot")).version == 2
    running = await approved(service, tool="other")
    await service.claim(running.id, fine)
    assert (await service.cancel(running.id, "tired", actor="ci-bot")).state is State.FORWARDING


async def test_voiding_ends_calls_that_were_not_sent_and_no_others(service):
    call = await approved(service)
    assert (await service.void(call.id, "changed")).state is State.VOIDED
    assert (await service.void(call.id, "changed")).version == 3


async def test_approve_cancel_and_expire_at_the_same_time_have_one_result(service):
    for n in range(20):
        call = await hold(service, tool=f"t{n}")
        service.clock.now = call.expires_at - 0.0001
        jobs = [
            review(service, call),
            service.cancel(call.id, "x", actor="a"),
            service.claim(call.id, fine),
            service.sweep(),
        ]
        await asyncio.gather(*jobs[n % 4 :], *jobs[: n % 4], return_exceptions=True)
        events = [event.kind for event in await service.store.events(call=call.id)]
        state = (await service.get(call.id)).state
        ends = {"hold.cancelled", "hold.expired", "hold.forwarding"} & set(events)
        assert len(ends) <= 1
        assert ("hold.forwarding" in events) == (state is State.FORWARDING)


async def test_the_sweep_expires_due_calls_and_no_others(service):
    waiting, other = await hold(service), await hold(service, tool="other")
    await review(service, other)
    service.clock.now += 600
    await service.sweep()
    assert (await service.get(waiting.id)).state is State.PENDING
    assert (await service.get(other.id)).state is State.EXPIRED
    service.clock.now += 300
    await service.sweep()
    assert (await service.get(waiting.id)).state is State.EXPIRED


async def test_a_sweep_reads_only_the_calls_that_it_changes(service):
    waiting = [await hold(service, tool=f"t{n}") for n in range(3)]
    running = await approved(service, tool="running")
    await service.claim(running.id, fine)
    await runner(service, running).replica.end()
    read, get = [], service.store.get

    async def counted(call_id):
        read.append(call_id)
        return await get(call_id)

    service.store.get = counted
    after = another(service)
    with after.attend(waiting[0].id):
        await after.sweep()
    assert {call.id for call in await after.open_calls()} == {call.id for call in waiting}
    assert set(read) == {running.id}
    assert (await get(running.id)).state is State.IN_DOUBT


async def test_an_answer_is_collected_once(service):
    call = await hold(service)
    await review(service, call, Decision.DENY, reason="no")
    assert (await service.record_collected(call.id)).collected
    await service.record_collected(call.id)
    assert (await kinds(service)).count("hold.collected") == 1
    assert not lifecycle.can_join(await service.get(call.id), service.clock())
    assert (await hold(service)).twin == call.id


async def test_a_change_that_already_happened_is_returned_at_once_and_a_later_one_is_waited_for(service):
    call = await hold(service)
    after = await review(service, call)
    assert await service.wait_for_change(call, 5) == after
    waiting = asyncio.ensure_future(service.wait_for_change(after, 5))
    await asyncio.sleep(0)
    await service.cancel(call.id, "x", actor="a")
    async with asyncio.timeout(HANG):
        assert (await waiting).state is State.CANCELLED
    assert (await service.wait_for_change(await service.get(call.id), 0.001)).state is State.CANCELLED


async def test_no_wakeup_is_lost_between_reading_and_waiting(service):
    for n in range(30):
        call = await hold(service, tool=f"t{n}")
        async with asyncio.timeout(HANG):
            changed, _ = await asyncio.gather(service.wait_for_change(call, 10), review(service, call))
        assert changed.state is State.APPROVED


async def test_the_events_of_a_call_fold_to_its_row(service):
    call = await approved(service, needed=1)
    await service.claim(call.id, fine)
    await service.finish(call.id, DONE)
    await service.record_collected(call.id)
    last = (await service.store.events(call=call.id))[-1]
    row = await service.get(call.id)
    assert (last.detail["state"], last.detail["version"]) == (row.state, row.version)
    versions = [event.detail["version"] for event in await service.store.events(call=call.id)]
    assert versions == list(range(1, row.version + 1))


async def test_a_cancelled_caller_leaves_a_consistent_state(service):
    for ticks in range(12):
        call = await approved(service, tool=f"t{ticks}")
        claiming = asyncio.ensure_future(service.claim(call.id, fine))
        for _ in range(ticks):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait([claiming])
        if not claiming.cancelled():
            assert call.id in service.running  # the claim was committed before it could be cancelled
            continue
        await service.store.check()  # by now the store has done every job
        await service.sweep()
        assert (await service.get(call.id)).state in (State.APPROVED, State.IN_DOUBT)
        assert call.id not in service.running


class ReadSummaries:
    """The calls whose summaries a store returns."""

    def __init__(self, store, monkeypatch):
        self.calls = set()
        for name in ("open_summaries", "summaries", "due"):
            monkeypatch.setattr(store, name, self.recorded(getattr(store, name)))

    def recorded(self, read):
        async def recorded(*args, **more):
            found = await read(*args, **more)
            self.calls |= {getattr(call, "id", call) for call in getattr(found, "items", found)}
            return found

        return recorded


async def test_a_sweep_does_not_read_the_calls_that_wait(service, monkeypatch):
    for n in range(20):
        await hold(service, tool=f"waits{n}")
    await approved(service, tool="is approved")
    call = await running(service)
    read = ReadSummaries(service.store, monkeypatch)
    await service.sweep()
    assert read.calls == {call.id}


async def test_every_run_of_a_lost_runner_is_put_in_doubt(service):
    lost, runs = another(service), 3
    for n in range(runs):
        call = await approved(service, tool=f"t{n}")
        await lost.claim(call.id, fine)
    await lost.replica.end()
    service.store.summaries = partial(limit_page, service.store.summaries)
    await service.sweep()
    assert len((await service.store.select((State.IN_DOUBT,))).items) == runs


async def limit_page(summaries, states, *, before, **_):
    return await summaries(states, limit=1, before=before)
