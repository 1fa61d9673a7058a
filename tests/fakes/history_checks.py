"""Checks the history of a run against the promises of Okayed (PURE).

Each check yields a sentence for each fault; `find_faults` returns those of every check.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from approvals import audit, digest
from approvals.call_events import GATEWAY
from approvals.lifecycle import TRANSITIONS
from approvals.model import AuditEvent, Decision, HeldCall, State
from history import Answer, GivenReview, History, Request, marker, subject


def find_unapproved_forwards(history: History) -> Iterator[str]:
    """Find calls that a server received without enough approvals, or before their claim was committed."""
    for one in history.received:
        if one.tool in history.free:
            continue
        about = f"{one.server}/{one.tool} received {marker(one.arguments)}"
        calls = history.held.get(subject(one), ())
        sent = [seq for call in calls for seq in history.forwarded.get(call.id, ())]
        if not calls:
            yield f"{about}, but no held call has these arguments."
        elif not sent:
            yield f"{about}, but the trail has no hold.forwarding event for it."
        elif one.head is not None and min(sent) > one.head:
            yield f"{about} before its hold.forwarding event was committed."
        elif one.head is not None and all(_was_in_doubt(history, call, one.head) for call in calls):
            yield f"{about} after a gateway had put it in doubt."
    for call in history.calls:
        yield from _find_approval_faults(history, call)


def _find_approval_faults(history: History, call: HeldCall) -> Iterator[str]:
    sent = history.forwarded.get(call.id)
    if not sent:
        return
    if len(sent) > 1:
        yield f"{call.id} has {len(sent)} hold.forwarding events."
    before = [event for event in history.changes.get(call.id, ()) if event.seq < sent[0]]
    if not any(event.kind == "hold.approved" for event in before):
        yield f"{call.id} was forwarded without a hold.approved event before."
    approvers = _approvers(history, call, sent[0])
    if len(approvers) < call.terms.needed:
        yield f"{call.id} was forwarded with {len(approvers)} of {call.terms.needed} approvals by its approvers."
    shown = {event.detail.get("digest") for event in before} | {
        digest.digest(call.call, call.definition, call.identity)
    }
    if shown != {call.digest}:
        yield f"{call.id} was approved for other bytes than it holds."


def _was_in_doubt(history: History, call: HeldCall, head: int) -> bool:
    """Return whether a gateway, not a person, had put a call in doubt by this event."""
    return any(
        event.kind == "hold.in_doubt" and event.actor == GATEWAY and event.seq <= head
        for event in history.changes.get(call.id, ())
    )


def _approvers(history: History, call: HeldCall, before: int) -> set[str]:
    """Return the listed approvers who approved a call, or the call that it continues, before this event."""
    while call.continues is not None and call.continues in history.by_id:
        call = history.by_id[call.continues]
    return {
        event.actor
        for event in history.changes.get(call.id, ())
        if event.seq < before and event.detail.get("answer") == Decision.APPROVE
    } & call.terms.approvers


def find_second_runs(history: History) -> Iterator[str]:
    """Find calls that a server received twice, or more often than they were claimed."""
    bound = [one for one in history.received if one.tool not in history.free]
    for name, times in Counter(marker(one.arguments) for one in bound).items():
        if times > 1:
            yield f"{name} was received {times} times."
    for key, times in Counter(map(subject, bound)).items():
        if times > (sends := history.sends(key)):
            yield f"{marker(key[2])} was received {times} times, but claimed {sends} times."


def find_lost_decisions(history: History) -> Iterator[str]:
    """Find acknowledged reviews that are missing, and denied calls that ran."""
    for given in history.reviews:
        if given.acknowledged:
            about = f"{given.approver}'s {given.decision} of {given.call} was acknowledged"
            yield from (f"{about}, but {why}." for why in _find_review_faults(history, given))
    for call in history.calls:
        if call.denial is not None and history.forwarded.get(call.id):
            yield f"{call.id} was denied by {call.denial.approver}, but it was forwarded."
        if call.state is State.PENDING and call.enough:
            yield f"{call.id} has enough approvals, but it is pending."


def _find_review_faults(history: History, given: GivenReview) -> Iterator[str]:
    recorded = [
        event.seq
        for event in history.changes.get(given.call, ())
        if event.actor == given.approver and event.detail.get("answer") == given.decision
    ]
    if not recorded:
        yield "it is not in the trail"
    elif given.head is not None and recorded[0] > given.head:
        yield "it was committed later"
    call = history.by_id.get(given.call)
    if call is None:
        yield "the call is not in the store"
        return
    if not any((past.approver, past.answer) == (given.approver, given.decision) for past in call.reviews):
        yield "the call does not have it"
    if given.decision is Decision.DENY and call.state is not State.DENIED:
        yield f"the call is {call.state}"


def find_states_going_back(history: History) -> Iterator[str]:
    """Find gaps in versions, impossible transitions, and calls older than their trail or an acknowledged version."""
    for call_id, events in history.changes.items():
        versions = [event.detail["version"] for event in events]
        if versions != list(range(1, len(versions) + 1)):
            yield f"The trail has the versions {versions} of {call_id}."
        yield from _find_impossible_steps(call_id, events)
        yield from _find_end_faults(call_id, events[-1], history.by_id.get(call_id))
    for call in history.calls:
        if call.id not in history.changes:
            yield f"{call.id} is in the store, but not in the trail."
    for call_id, version in history.acknowledged:
        stored = history.by_id.get(call_id)
        if stored is None or stored.version < version:
            has = f"version {stored.version}" if stored else "no such call"
            yield f"Version {version} of {call_id} was acknowledged, but the store has {has}."


def _find_impossible_steps(call_id: str, events: Sequence[AuditEvent]) -> Iterator[str]:
    states = [State(event.detail["state"]) for event in events]
    if states[0] is not (State.APPROVED if "continues" in events[0].detail else State.PENDING):
        yield f"{call_id} began as {states[0]}."
    for old, new in pairwise(states):
        if new is not old and new not in TRANSITIONS[old]:
            yield f"{call_id} went from {old} to {new}."


def _find_end_faults(call_id: str, last: AuditEvent, call: HeldCall | None) -> Iterator[str]:
    if call is None:
        yield f"{call_id} is in the trail, but not in the store."
    elif (last.detail["version"], last.detail["state"]) != (call.version, call.state):
        yield (
            f"{call_id} is {call.state} in version {call.version}, but the trail ends with {last.detail['state']} "
            f"in version {last.detail['version']}."
        )


def find_broken_chain(history: History) -> Iterator[str]:
    """Find broken links of the trail, and heads that it no longer has."""
    numbers = Counter(event.seq for event in history.events)
    yield from (f"Event {seq} is in the trail {times} times." for seq, times in numbers.items() if times > 1)
    missing = set(range(1, max(numbers, default=0) + 1)) - set(numbers)
    yield from (f"Event {seq} is missing." for seq in sorted(missing))
    if broken := audit.verify(history.events, history.chain_key):
        yield f"The chain is broken at event {broken.seq}: {broken.why}."
    hashes = {event.seq: event.hash for event in history.events}
    for head in history.heads:
        if hashes.get(head.seq) != head.hash:
            yield f"Event {head.seq} was the head of the trail; now it is {'another' if head.seq in hashes else 'gone'}."


def find_untrue_answers(history: History) -> Iterator[str]:
    """Find untrue answers to clients."""
    for request in history.requests:
        about = f"{request.agent} was told that {marker(request.arguments)}"
        yield from (f"{about} {why}." for why in _CLAIMS.get(request.answer, _no_claim)(history, request))


def _no_claim(_: History, __: Request) -> Iterator[str]:
    return iter(())


def _find_result_faults(history: History, request: Request) -> Iterator[str]:
    arrived = [one for one in history.arrivals.get(subject(request), ()) if one.at < request.answered]
    if not arrived:
        yield "ran, but the server had not received it"
    if marker(request.arguments) not in request.text:
        yield f"ran, but with the answer of another call ({request.text!r})"


def _find_denial_faults(history: History, request: Request) -> Iterator[str]:
    if not any(call.denial for call in history.held.get(subject(request), ())):
        yield "was denied, but no approver denied it"
    yield from _find_run_faults(history, request)


def _find_run_faults(history: History, request: Request) -> Iterator[str]:
    if _has_run(history, request):
        yield "did not run, but the server had received it"


def _has_run(history: History, request: Request) -> bool:
    """Return whether the call of an answer ran. An answer may name one of several calls with the same arguments."""
    key = subject(request)
    arrived = [one for one in history.arrivals.get(key, ()) if one.at < request.answered]
    if request.call:
        return bool(history.forwarded.get(request.call)) and len(arrived) >= history.sends(key)
    return bool(arrived)


_CLAIMS: Mapping[Answer, Callable[[History, Request], Iterator[str]]] = {
    Answer.RESULT: _find_result_faults,
    Answer.DENIED: _find_denial_faults,
    Answer.NOT_RUN: _find_run_faults,
}


def find_false_doubts(history: History) -> Iterator[str]:
    """Find calls in doubt although their gateway lived, their server answered, and no person gave them up."""
    for event in history.events:
        if event.kind != "hold.in_doubt" or event.actor != GATEWAY or event.call is None:
            continue
        began = min(history.forwarded.get(event.call, [event.seq]))
        call = history.by_id.get(event.call)
        key = (call.call.server, call.call.tool, call.call.arguments) if call else ("", "", b"")
        runner = call.runner if call else ""
        killed = any(
            began <= kill.head < event.seq and kill.replica in {"", runner} for kill in history.kills
        )
        if not killed and not any(one.cut for one in history.arrivals.get(key, ())):
            yield f"{event.call} was put in doubt, but no gateway was killed while it ran."


def find_lost_holds(history: History) -> Iterator[str]:
    """Find held calls that a client was shown and that are missing or differ in the store."""
    for request in history.requests:
        about = f"{request.agent} was shown {request.call or 'a hold'} for {marker(request.arguments)}"
        call = history.by_id.get(request.call)
        if request.call and call is None:
            yield f"{about}, but it is not in the store."
        elif call is not None and (call.call.agent, call.call.server, call.call.tool, call.call.arguments) != (
            request.agent, *subject(request),
        ):  # fmt: skip
            yield f"{about}, but that is another call."
        elif call is not None and request.expires_at not in {
            None,
            int(call.created_at + call.terms.expire_after),
        }:
            yield f"{about} with another deadline than the call has."
        elif request.answer is Answer.WAITING and subject(request) not in history.held:
            yield f"{about}, but no held call has these arguments."


Check = Callable[[History], Iterator[str]]
#: The checks for a store that is used without approvers and servers.
STORE_CHECKS: Sequence[Check] = (find_states_going_back, find_broken_chain)
CHECKS: Sequence[Check] = (
    find_unapproved_forwards,
    find_second_runs,
    find_lost_decisions,
    *STORE_CHECKS,
    find_untrue_answers,
    find_false_doubts,
    find_lost_holds,
)


def find_faults(history: History, checks: Sequence[Check] = CHECKS) -> list[str]:
    """Return a sentence for each fault; an empty list for a right history."""
    return [sentence for check in checks for sentence in check(history)]


def assert_no_faults(history: History, checks: Sequence[Check] = CHECKS, *, about: str = "") -> None:
    """Raise `AssertionError` with a line for each fault; *about* says how to repeat the run."""
    found = find_faults(history, checks)
    assert not found, "\n".join([f"{len(found)} faults {about}".rstrip() + ":", *found])
