"""Severity depends on the subject and the number of items, not on the risk class."""

from itertools import combinations

import pytest

from gateway.tools.classify.lexicon import RANK, Category
from gateway.tools.classify.naming import split_words
from gateway.tools.classify.severity import BASE, MANY_IDS, SUBJECTS, Severity, assess, rank
from rows import each_row


@each_row(
    ("category", "name", "params", "expected", "reason"),
    [
        ("Read", "list_users", (), "low", "it changes nothing"),
        ("Read", "get_secret", (), "high", 'it touches secrets ("secret")'),
        ("Read", "get_env", (), "high", 'it touches secrets ("env")'),
        ("Destructive", "delete_broker", (), "critical", 'data or systems ("broker")'),
        ("Read", "get_access_token", (), "medium", 'keys, tokens and certificates ("token")'),
        ("Read", "get_patient", (), "medium", "personal data"),
        ("Read", "list_all_users", ("ids",), "low", "it changes nothing"),
        ("Write", "reply_to_slack_thread", (), "medium", "usually reversible"),
        ("Write", "put_user_policy", (), "high", 'identity and permissions ("user", "policy")'),
        ("Write", "merge_pull_request", (), "high", "code or its execution"),
        ("Write", "create_invoice", (), "high", 'it touches money ("invoice")'),
        ("Write", "bulk_update_rows", (), "high", 'affects many items at once ("bulk")'),
        ("Write", "update_rows", ("ids",), "high", 'affects many items at once ("ids")'),
        ("Write", "bulk_update_users", (), "critical", "many items"),
        ("Execute", "browser_navigate", (), "high", "depends on the arguments"),
        ("Destructive", "delete_note", (), "high", "may remove something for good"),
        ("Destructive", "drop_database", (), "critical", "production data"),
        ("Destructive", "delete_all_notes", (), "critical", "many items"),
        ("Financial", "pay", (), "high", "moves money"),
        ("Other", "zarf", (), "medium", "effect is unknown"),
    ],
)
def test_severity_follows_the_subject_and_the_number_of_items(category, name, params, expected, reason):
    level, why = assess(Category(category), split_words(name), params)
    assert level == expected
    assert reason in why
    assert why.startswith(f"Severity is {level}: ")


@each_row("subject", SUBJECTS)
def test_a_change_is_at_least_as_severe_as_a_read_and_destruction_as_a_change(subject):
    assert rank(subject.reading) <= rank(subject.changing) <= rank(subject.destroying)


@pytest.mark.parametrize("params", [(), tuple(MANY_IDS)[:1]])
def test_a_worse_category_never_has_a_lower_severity(params):
    names = [(), *((word,) for subject in SUBJECTS for word in subject.words)]
    for lower, higher in combinations(sorted(BASE, key=RANK.__getitem__), 2):
        if RANK[lower] < RANK[higher]:
            assert all(rank(assess(lower, n, params)[0]) <= rank(assess(higher, n, params)[0]) for n in names)


def test_severities_are_ordered():
    assert [str(level) for level in sorted(Severity, key=rank)] == ["low", "medium", "high", "critical"]
