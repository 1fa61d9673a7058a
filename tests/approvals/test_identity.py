"""Finding approvers, and their permission to review."""

import hashlib

import pytest

from approval_fixtures import held
from approvals.errors import NotAnApprover, OwnRequest
from approvals.identity import Directory
from approvals.model import Approver
from replacing import replace
from rows import each_row


def hashed(token):
    return hashlib.sha256(token.encode()).hexdigest()


ALICE = Approver(name="alice", email="Alice@Example.com", slack="U01", token_sha256=hashed("a"))
BOB = Approver(name="bob")
PEOPLE = Directory([ALICE, BOB])


def test_an_approver_is_found_by_each_identity():
    assert PEOPLE.names == {"alice", "bob"}
    assert (
        PEOPLE.by_name("alice")
        is PEOPLE.by_slack("U01")
        is PEOPLE.by_email("alice@EXAMPLE.com")
        is PEOPLE.by_token("a")
        is ALICE
    )


@each_row("unknown", ["", "x", "é", "\ud800", "None"])
def test_unknown_and_empty_identities_find_no_approver(unknown):
    for found in (PEOPLE.by_name, PEOPLE.by_slack, PEOPLE.by_email, PEOPLE.by_token):
        assert found(unknown) is None


@each_row("same", [slice(0, 32), slice(32, 64), slice(0, 63), slice(1, 64)])
def test_a_token_whose_hash_matches_only_in_part_finds_no_approver(same):
    known = ["0" if digit != "0" else "1" for digit in hashed("a")]
    known[same] = hashed("a")[same]
    assert Directory([replace(ALICE, token_sha256="".join(known))]).by_token("a") is None
    assert Directory([replace(ALICE, token_sha256=hashed("a")[same])]).by_token("a") is None


def test_an_identity_shared_by_two_people_finds_no_approver():
    twice = Directory([ALICE, replace(BOB, slack="U01", email="alice@example.com", token_sha256=hashed("a"))])
    assert twice.by_slack("U01") is twice.by_email("alice@example.com") is twice.by_token("a") is None


def test_a_listed_approver_may_review():
    PEOPLE.may_review(ALICE, held(0.0))


@pytest.mark.parametrize("who", [Approver(name="eve"), Approver(name="alice"), replace(ALICE, slack="U99")])
def test_an_approver_who_differs_from_the_config_may_not(who):
    with pytest.raises(NotAnApprover):
        PEOPLE.may_review(who, held(0.0))


def test_an_approver_of_other_calls_may_not():
    call = held(0.0)
    for approvers in (frozenset({"bob"}), frozenset()):
        with pytest.raises(NotAnApprover):
            PEOPLE.may_review(ALICE, replace(call, terms=replace(call.terms, approvers=approvers)))


@pytest.mark.parametrize("owner", ["alice", "ALICE", "alice@example.com"])
def test_the_owner_of_the_agent_may_not_unless_the_terms_allow_it(owner):
    call = held(0.0, owner=owner)
    with pytest.raises(OwnRequest):
        PEOPLE.may_review(ALICE, call)
    PEOPLE.may_review(ALICE, replace(call, terms=replace(call.terms, requester_may_approve=True)))
    PEOPLE.may_review(BOB, call)
