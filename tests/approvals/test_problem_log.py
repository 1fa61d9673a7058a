"""A problem that lasts is logged when it begins, changes and ends."""

import logging

from approvals.problem_log import ProblemLog


def test_a_problem_is_logged_when_it_begins_changes_and_ends(caplog):
    caplog.set_level(logging.INFO)
    problems = ProblemLog(logging.getLogger("okayed"), "the sweep")
    problems.clear()
    for problem in ("full", "full", "broken", "", "", "broken"):
        problems.report(problem) if problem else problems.clear()
    assert caplog.messages == [
        "the sweep failed and is tried again: full",
        "the sweep failed and is tried again: broken",
        "the sweep works again",
        "the sweep failed and is tried again: broken",
    ]
