"""The protocol's own conformance suite: what it says of a server, it says of that server behind the gateway."""

from collections import Counter

import conformance


async def test_every_verdict_through_the_gateway_is_the_verdict_without_it():
    measured = await conformance.measure()
    print(conformance.table(measured))
    assert await conformance.differences(measured) == []
    failed = {suite: measured[suite, "direct"].failed for suite in conformance.SUITES}
    # The server that is used for this passes all that is scored: the SDK it is made with has no tasks extension.
    assert all(scenario.startswith("tasks-") for scenarios in failed.values() for scenario in scenarios)
    assert measured["0.1.16 --suite active", "direct"].counts["SUCCESS"] == 40


def test_a_verdict_that_differs_is_told():
    passed, failed = Counter(SUCCESS=1), Counter(FAILURE=1)
    direct = conformance.Outcome({"ping": {"a": passed, "b": passed}, "tools": {"c": passed}})
    through = conformance.Outcome({"ping": {"a": passed, "b": failed}})
    assert direct.without(through) == [
        "ping b: 1 SUCCESS, but 1 FAILURE",
        "tools c: 1 SUCCESS, but absent",
    ]
    assert direct.without(direct) == []
