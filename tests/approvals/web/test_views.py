from approval_fixtures import held
from approvals.model import Decision, Outcome, Review, State
from approvals.web import views
from replacing import replace
from rows import each_row


@each_row(
    ("state", "outcome", "shown"),
    [
        (State.COMPLETED, Outcome(is_error=False, body=b'{"content": []}'), ("Done", "good")),
        (State.COMPLETED, Outcome(is_error=False, body=b'{"content": [], "isError": false}'), ("Done", "good")),
        (State.COMPLETED, Outcome(is_error=False, body=b'{"content": [], "isError": true}'), views.FAILED),
        (State.COMPLETED, Outcome(is_error=False, body=b'{"content": [], "isError": "yes"}'), views.FAILED),
        (State.UPSTREAM_ERROR, Outcome(is_error=True, body=b'{"code": 1, "message": "no"}'), views.FAILED),
    ],
)  # fmt: skip
def test_a_failed_call_is_not_labelled_done(state, outcome, shown):
    call = replace(held(0.0), state=state, outcome=outcome)
    assert views.label_state(call) == shown


def test_every_state_has_a_label_and_an_explanation():
    assert set(views.LABELS) == set(views.EXPLANATIONS) == set(State)


@each_row(
    ("text", "expected"),
    [
        ('{"a": 1}', [("", "{"), ("key", '"a"'), ("", ": "), ("number", "1"), ("", "}")]),
        ('"x": "y"', [("key", '"x"'), ("", ": "), ("string", '"y"')]),
        ('["a\\"b", true, null, -1.5e+9]',
         [("", "["), ("string", '"a\\"b"'), ("", ", "), ("word", "true"), ("", ", "), ("word", "null"), ("", ", "),
          ("number", "-1.5e+9"), ("", "]")]),
        ('"a\\u{202E}b"', [("string", '"a'), ("hidden", "\\u{202E}"), ("string", 'b"')]),
        ('"\\\\u{202E}"', [("string", '"\\\\u{202E}"')]),
        ('"\\\\\\u{202E}"', [("string", '"\\\\'), ("hidden", "\\u{202E}"), ("string", '"')]),
        ("\\u{200B}", [("hidden", "\\u{200B}")]),
        ("", []),
    ],
)  # fmt: skip
def test_json_is_cut_into_tokens_of_known_kinds(text, expected):
    assert list(views.highlight(text)) == expected


def test_no_character_is_lost_or_added_when_text_is_cut():
    text = '{"a": "\\u{202E}", "b\\\\": [1, 2.5, false, "x\\ny"], odd "quote: nullable}'
    assert "".join(part for _, part in views.highlight(text)) == text


def test_very_long_text_is_shown_whole_with_hidden_characters_marked():
    text = '"' + "x" * views.MAX_COLOURED + '\\u{200B}end"'
    assert list(views.highlight(text)) == [("", text[:-12]), ("hidden", "\\u{200B}"), ("", 'end"')]


@each_row(
    ("seconds", "words"),
    [(0, "just now"), (59, "just now"), (60, "1 min ago"), (7200, "2 h ago"), (200000, "2 d ago")],
)
def test_an_age_is_formatted_in_words(seconds, words):
    assert views.format_age(seconds) == words


def test_a_time_is_formatted_for_people_and_for_scripts():
    shown = views.format_timestamp(1793500000.25)
    assert (shown.iso, shown.words, shown.clock) == (
        "2026-11-01T02:26:40.250Z",
        "1 Nov 2026, 02:26:40 UTC",
        "02:26 UTC",
    )


def test_an_uncollected_approval_is_not_shown_as_unanswered():
    expired = replace(held(0.0), state=State.EXPIRED)
    approved = replace(
        expired, reviews=(Review(approver="alice", answer=Decision.APPROVE, at=1.0, via="inbox"),)
    )
    assert views.explain_state(expired) == "It did not run: it was not approved in time."
    assert (
        views.explain_state(approved)
        == "It was approved but did not run: the agent did not pick it up in time."
    )
