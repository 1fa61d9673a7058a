"""Cards, and the truncated cards of large calls."""

import json

from approval_fixtures import held
from approvals.cards import build_card
from approvals.model import Outcome, State
from replacing import replace

LARGE = json.dumps(
    {"path": "/etc/passwd", "token": "t0p", "text": "é" * 100_000}, ensure_ascii=False
).encode()


def test_a_truncated_card_of_a_large_call_says_so():
    call = held(0.0, arguments=LARGE, extra_params=b'{"_meta": {"a": 1}}')
    whole, begun = build_card(call, "", attended=True), build_card(call, "", attended=True, most=1000)
    assert begun.arguments.removesuffix('"\n}') in whole.arguments
    assert 500 < len(begun.arguments) < 1100
    assert begun.extra_params == whole.extra_params
    assert (begun.whole, begun.size) == (False, len(LARGE) + 19)
    assert (whole.whole, whole.size) == (True, len(LARGE) + 19)
    assert "t0p" not in begun.arguments


def test_a_call_that_fits_is_the_same_card_either_way():
    call = held(0.0, extra_params=b'{"_meta": {"a": 1}}')
    assert build_card(call, "", attended=True, most=1000) == build_card(call, "", attended=True)


def test_extra_params_are_truncated_too():
    begun = build_card(
        held(0.0, extra_params=b'{"_meta": "%s"}' % (b"x" * 5000)), "", attended=True, most=1000
    )
    assert (len(begun.extra_params) < 1100, begun.whole) == (True, False)


def test_a_card_says_that_the_server_reported_a_failure():
    outcome = Outcome(is_error=False, body=b'{"content": [], "isError": true}')
    shown = build_card(replace(held(0.0), state=State.COMPLETED, outcome=outcome), "", attended=True)
    assert (shown.failed, shown.result) == (True, "Sent once; the server reported a failure.")
