"""The official MCP conformance suite gives the same results for a server with and without the gateway."""

from collections import Counter

import conformance


async def test_the_suite_gives_the_same_results_with_and_without_the_gateway():
    measured = await conformance.measure()
    print(conformance.table(measured))
    assert await conformance.differences(measured) == []
    failed = {suite: measured[suite, "direct"].failed for suite in conformance.SUITES}
    # The server passes every scored test: its SDK does not support tasks.
    assert all(scenario.startswith("tasks-") for scenarios in failed.values() for scenario in scenarios)
    assert measured["0.1.16 --suite active", "direct"].counts["SUCCESS"] == 40


def test_a_different_result_is_reported():
    passed, failed = Counter(SUCCESS=1), Counter(FAILURE=1)
    direct = conformance.Outcome({"ping": {"a": passed, "b": passed}, "tools": {"c": passed}})
    through = conformance.Outcome({"ping": {"a": passed, "b": failed}})
    assert direct.differences_from(through) == [
        "ping b: 1 SUCCESS, but 1 FAILURE",
        "tools c: 1 SUCCESS, but absent",
    ]
    assert direct.differences_from(direct) == []
