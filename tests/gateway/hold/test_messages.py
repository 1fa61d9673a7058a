"""The exact texts that agents get."""

import json
from math import inf

from approval_fixtures import held
from approvals.errors import AgentBytesExceeded, HourlyBytesExceeded, QuotaExceeded, TotalBytesExceeded
from approvals.model import Decision, Outcome, Review, State, Terms
from gateway.hold import messages
from gateway.policy.limits import ExceededLimit, Limit
from replacing import replace
from rows import each_row

NOW = 1_800_000_000.0
TEN = Limit(name="r", max=10, window=60)
DENIAL = Review(
    approver="alice", answer=Decision.DENY, reason="use the staging account.", at=NOW, via="slack"
)
#: Of a config that does not remember denials.
FORGOTTEN = Terms(approvers=frozenset({"alice"}), denied_for=0.0)
YES = Review(approver="alice", answer=Decision.APPROVE, at=NOW, via="slack")

TEXTS = [
    ({"state": State.PENDING}, "WAITING: a person has to approve this call ({id}). It has NOT run. Nothing is wrong. To get the answer, make the same call with the same arguments; it runs at most once and can be asked for until 08:15 UTC. If you have other work, do it first, or tell your user and stop."),
    ({"state": State.PENDING, "created_at": NOW - 86400}, "WAITING: a person has to approve this call ({id}). It has NOT run. Nothing is wrong. To get the answer, make the same call with the same arguments; it runs at most once and can be asked for until 2027-01-15 08:15 UTC. If you have other work, do it first, or tell your user and stop."),
    ({"state": State.APPROVED}, "WAITING: this call ({id}) is approved. It has NOT run. Nothing is wrong. To get the answer, make the same call with the same arguments; it runs at most once and can be asked for until 08:15 UTC."),
    ({"state": State.FORWARDING}, "RUNNING: this call ({id}) was approved and is running now. Nothing is wrong. To get the answer, make the same call with the same arguments; it runs at most once. If you have other work, do it first, or tell your user and stop."),
    ({"state": State.DENIED, "reviews": (DENIAL,)}, "Denied by alice: use the staging account. NOT EXECUTED. Asking again will not change this."),
    ({"state": State.DENIED, "reviews": (DENIAL,), "terms": FORGOTTEN}, "Denied by alice: use the staging account. NOT EXECUTED."),
    ({"state": State.EXPIRED}, "Nobody answered within 15 min. NOT EXECUTED. You may ask again."),
    ({"state": State.EXPIRED, "reviews": (YES,)}, "Approved, but not collected within 10 min. NOT EXECUTED. You may ask again."),
    ({"state": State.CANCELLED, "note": "no longer needed"}, "Cancelled: no longer needed. NOT EXECUTED."),
    ({"state": State.CANCELLED}, "Cancelled: the request was withdrawn. NOT EXECUTED."),
    ({"state": State.VOIDED, "note": "the tool changed."}, "No longer valid: the tool changed. NOT EXECUTED. You may ask again."),
    ({"state": State.NOT_SENT, "note": "The server could not be reached."}, "The server could not be reached. NOT EXECUTED. You may ask again."),
    ({"state": State.IN_DOUBT}, "The server gave no answer to this call. It MAY have run; a person has been notified. It will not be run again."),
    ({"state": State.RESOLVED, "note": "alice: it ran"}, "The server gave no answer to this call. A person looked into it: alice: it ran"),
]  # fmt: skip


@each_row(("changes", "text"), TEXTS)
def test_each_state_has_its_text(changes, text):
    call = replace(held(NOW), **changes)
    told = messages.status_result(call)
    assert told["content"] == [{"type": "text", "text": text.replace("{id}", call.id)}]
    assert told["isError"] is True
    about = told["_meta"]["okayed/approval"]
    assert (about["id"], about["state"]) == (call.id, changes["state"])
    assert about["expiresAt"] == "2027-01-15T08:15:00Z"
    soon = {State.PENDING: 30_000, State.APPROVED: 5000, State.FORWARDING: 5000}
    assert about.get("retryAfterMs") == soon.get(changes["state"])


def test_each_verdict_has_its_text():
    assert messages.denied_result("no.")["content"][0]["text"] == "Denied by policy: no. NOT EXECUTED."
    limited = messages.limited_result(ExceededLimit(limit=TEN, retry_after=41.7), "put_user_policy")[
        "content"
    ][0]["text"]
    assert limited == "Rate limit: 10 calls per 60 s for put_user_policy. NOT EXECUTED. Try again in 42 s."
    for refused, told in {
        QuotaExceeded: "Too many of your calls already wait for a person.",
        AgentBytesExceeded: "Your waiting calls use too much storage.",
        TotalBytesExceeded: "The waiting calls of all agents use too much storage.",
        HourlyBytesExceeded: "Your calls of the last hour use too much storage.",
    }.items():
        assert messages.too_many_waiting(refused())["content"][0]["text"].startswith(f"{told} NOT EXECUTED. ")


def test_the_servers_answer_is_returned_unchanged():
    call = replace(held(NOW), state=State.COMPLETED, outcome=Outcome(is_error=False, body=b'{ "x":1.0 }'))
    assert messages.final_frame(call, "i") == b'{"jsonrpc":"2.0","id":"i","result":{ "x":1.0 }}'
    pending = json.loads(messages.final_frame(held(NOW), 3))
    assert pending["id"] == 3


@each_row(
    ("seconds", "words"),
    [(1, "1 s"), (60, "60 s"), (90, "90 s"), (120, "2 min"), (900, "15 min"), (3600, "60 min"), (7200, "2 h"), (5400, "90 min"), (90000, "25 h"), (604800, "7 days"), (200, "3.3 min")],
)  # fmt: skip
def test_durations_are_written_for_people(seconds, words):
    assert messages.format_duration(seconds) == words


def test_a_limit_text_has_its_reason_and_says_if_the_call_can_never_fit():
    limit = replace(TEN, argument="args.amount", reason="Ask finance.")
    told = messages.limited_result(ExceededLimit(limit=limit, retry_after=inf), "pay")["content"][0]["text"]
    assert told == (
        "Rate limit: args.amount may add up to 10 per 60 s for pay. NOT EXECUTED. This call alone exceeds the limit. Ask finance."
    )
