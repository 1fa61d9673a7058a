"""Rows of earlier versions stay readable: their bytes are sealed, so the names in them cannot change."""

import hashlib
import json

from approvals.store.sqlite.seal import Seal
from approvals.summaries import summarize

#: A held call as every version has stored it. `beside` and `along` are the stored names of `extra_params` and `envelope`.
STORED = (
    b'{"id":"hold_00000000000000000000000001","version":7,"state":"completed","call":{"agent":"bot",'
    b'"owner":"carol@example.com","session":"s1","server":"github","tool":"delete_repo","arguments":"eyJyZXBvIjoiYSJ9",'
    b'"beside":"eyJfbWV0YSI6eyJhY21lL3RhcmdldCI6InByb2QifX0=","along":"eyJpZCI6NywiZXJhIjoiMjAyNS0wNi0xOCJ9"},'
    b'"terms":{"approvers":["alice"],"needed":1,"expire_after":900.0,"approved_for":600.0,"denied_for":600.0,'
    b'"requester_may_approve":false},"classification":{"category":"Destructive","risk":"High","severity":"critical",'
    b'"evidence":["delete"]},"rule":"ask","reason":"It deletes.","policy_revision":"p1","definition":"d1","identity":"",'
    b'"address":"","changes":"","key":"key","digest":"what was shown","created_at":1000.0,"expires_at":1900.0,'
    b'"decided_at":1001.25,"settled_at":1002.5,"reviews":[{"approver":"alice","answer":"approve","reason":"checked",'
    b'"at":1001.25,"via":"slack"}],"revealed":[],"outcome":{"is_error":false,"body":"eyJjb250ZW50IjpbXX0="},'
    b'"note":"a note","collected":true,"collected_at":null,"collected_by":"","repeated":false,'
    b'"task":false,"continues":null,"continued":"","twin":"hold_before","twin_at":12.5}'
)


#: The same call as versions before replicas stored it, with a field that says whether a client waits for it.
STORED_WITH_ATTENDED = STORED.replace(b'"collected":true', b'"attended":false,"collected":true')


def opened(body):
    return Seal(b"").open_call(body, hashlib.sha256(body).digest())


def test_a_stored_call_is_read_with_everything_that_was_approved():
    call = opened(STORED).call
    assert call.arguments == b'{"repo":"a"}'
    assert call.extra_params == b'{"_meta":{"acme/target":"prod"}}'
    assert call.envelope == b'{"id":7,"era":"2025-06-18"}'
    assert (call.agent, call.owner, call.session) == ("bot", "carol@example.com", "s1")


def test_a_stored_call_is_written_again_under_the_same_names():
    (*_, body, _), _ = Seal(b"").columns(opened(STORED))
    assert json.loads(body) == json.loads(STORED) | {"runner": ""}


def test_a_call_stored_with_its_presence_is_read_without_it():
    assert opened(STORED_WITH_ATTENDED) == opened(STORED)


def test_a_summary_stored_with_its_presence_is_read_without_it():
    call = opened(STORED)
    _, (*_, body, _) = Seal(b"").columns(call)
    older = body.replace(b'"task":', b'"attended":false,"task":')
    assert older != body
    seal = hashlib.sha256(b"summary " + older).digest()
    assert Seal(b"").open_summary(older, seal) == summarize(call)


def test_a_call_stored_before_extra_params_existed_is_read_without_them():
    begin, end = (
        STORED.split(b',"beside"')[0],
        STORED.split(b'"along":"eyJpZCI6NywiZXJhIjoiMjAyNS0wNi0xOCJ9"')[1],
    )
    call = opened(begin + end).call
    assert (call.arguments, call.extra_params, call.envelope) == (b'{"repo":"a"}', b"", b"")
