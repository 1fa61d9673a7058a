"""Folding of client metadata: correlation data is folded, data that could mislead is not."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from approval_fixtures import held
from approvals.cards import build_card
from approvals.client_meta import CODEX_NAMES, MAX_FOLDED, MAX_READ, split_params
from approvals.digest import digest
from captured_frames import CAPTURES
from rows import each_row

CODEX = {
    name: value
    for name, value in json.loads(CAPTURES["codex-http"].first)["params"]["_meta"].items()
    if name != "progressToken"
}


def packed(meta, **more) -> bytes:
    return json.dumps({**more, "_meta": meta}, ensure_ascii=False, separators=(",", ":")).encode()


def test_other_members_of_meta_are_shown_in_full():
    found = split_params(packed({**CODEX, "acme/target": "prod"}, requestState="s"))
    assert json.loads(found.shown) == {"requestState": "s", "_meta": {"acme/target": "prod"}}
    assert json.loads(found.folded) == CODEX
    assert split_params(packed({"acme/target": "prod"})).line == ""


def test_the_card_shows_both_parts_and_names_the_folded_members():
    shown = build_card(
        held(0.0, extra_params=packed({"callId": "c1", "acme/target": "prod"})), "", attended=True
    )
    assert shown.everything.endswith(
        '\n\nalso sent: {"_meta": {"acme/target": "prod"}}\nalso sent: 15 bytes of client metadata: callId'
    )


@each_row(
    ("meta", "redacted", "hidden"),
    [
        ({"callId": "c", "x-codex-turn-metadata": {"cwd": "x" * MAX_FOLDED}}, 0, 0),
        ({"claudecode/a": "x" * 2000, "claudecode/b": "x" * 2100}, 0, 0),
        ({"callId": "x\u200by"}, 0, 1),
        ({"claudecode/\u202e": 1}, 0, 1),
        ({"x-codex-turn-metadata": {"password": "hunter2"}}, 1, 0),
        ({"x-codex-turn-metadata": {"origin": "https://maria:hunter2@git.example.com/a"}}, 1, 0),
        ({"x-codex-turn-metadata": {"sessionId": {"token": "hunter2"}}}, 1, 0),
        ({"callid": "c"}, 0, 0),
        ({"claudecode": "c", "x-claudecode/a": 1}, 0, 0),
        ({"claudecode/a": 1, "more": "x" * MAX_READ}, 0, 0),
    ],
)
def test_misleading_metadata_is_not_folded(meta, redacted, hidden):
    beside = packed(meta)
    assert (split_params(beside).shown, split_params(beside).line) == (beside, "")
    shown = build_card(held(0.0, extra_params=beside), "", attended=True)
    assert (shown.redacted, shown.hidden_characters) == (redacted, hidden)


def test_a_session_id_is_a_secret_everywhere_else():
    shown = build_card(
        held(0.0, extra_params=packed({"callId": "c", "acme": {"sessionId": "s-123"}})), "", attended=True
    )
    assert (shown.redacted, shown.client_metadata != "") == (1, True)
    assert "s-123" not in shown.everything


def test_many_folded_members_still_give_one_line():
    many = {f"claudecode/{number}\n": number for number in range(100)}
    line = split_params(packed(many)).line
    assert (len(line), "\n" in line) == (300, False)


def test_client_metadata_of_exactly_the_limit_is_folded():
    most = {"callId": "x" * (MAX_FOLDED - len('{"callId":""}'))}
    assert len(split_params(packed(most)).folded) == MAX_FOLDED


def test_a_review_is_bound_to_the_folded_client_metadata():
    call = held(0.0, extra_params=packed(CODEX)).call
    other = msgspec.structs.replace(call, extra_params=packed({**CODEX, "callId": "call_1"}))
    assert digest(call) != digest(other)


values = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
names = st.sampled_from([*CODEX_NAMES, "claudecode/toolUseId", "acme/a"]) | st.text()


@given(st.dictionaries(names, values), st.dictionaries(st.text(), values))
def test_every_member_is_either_shown_or_folded(meta, more):
    beside = packed(meta, **{name: value for name, value in more.items() if name != "_meta"})
    found = split_params(beside)
    shown, folded = (json.loads(part or b"{}") for part in (found.shown, found.folded))
    together = {**shown, "_meta": {**shown.get("_meta", {}), **folded}}
    assert together == json.loads(beside)


@each_row("beside", [b"", b'{"_meta":"callId"}', b'{"_meta":[1]}', b"[]", b"\xff"])
def test_params_without_members_are_not_split(beside):
    assert split_params(beside).shown == beside
