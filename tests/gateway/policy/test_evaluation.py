"""Tests for policy evaluation: verdicts, independence of the rules' order, and restrictions that never loosen."""

import json
from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.app import config
from gateway.config.problems import ConfigProblems, format_path
from gateway.policy import evaluation
from gateway.policy.compiling import compile_policy
from gateway.policy.evaluation import STRICTNESS, Action, CallFacts
from gateway.tools.classify.risk import Category, classify
from rows import each_row

PEOPLE = "approvers: [{name: alice}, {name: bob}, {name: carol}]\ngroups: {platform: [alice, bob]}\n"


def compiled(text: str, more: str = PEOPLE):
    return compile_policy(
        config.parse_config(f"servers: {{iam: {{command: [x]}}}}\n{more}policy: {text}\n", {}, str)
    )


def judge(rules, tool: str, arguments=None, server="iam"):
    made = compiled(rules) if isinstance(rules, str) else rules
    found = classify({"name": tool}, ())
    return made.evaluate(
        CallFacts(server=server, tool=tool, agent="ci-bot", arguments=arguments or {}, classification=found)
    )


def test_the_default_applies_when_no_rule_matches():
    verdict = judge("{default: deny}", "get_user")
    assert (verdict.action, verdict.rule, verdict.reason) == (
        Action.DENY,
        "default",
        "the rule default does not allow this call",
    )


def test_the_first_matching_row_of_the_matrix_decides():
    rules = "{default: deny, matrix: [{category: [Read], risk: [High], action: deny}, {category: [Read], action: allow}, {severity: [high], action: require_approval}]}"
    assert judge(rules, "get_user").rule == "matrix[1]"
    assert judge(rules, "put_user_policy").rule == "matrix[2]"
    assert judge(rules, "frobnicate").rule == "default"


SMALL = """{default: deny, matrix: [
    {category: [Read], when: "args.count < 10", action: allow},
    {category: [Read], when: "args.count < 100", action: require_approval}]}"""


@each_row(
    ("arguments", "action", "rule"),
    [
        ({"count": 9}, Action.ALLOW, "matrix[0]"),
        ({"count": 10}, Action.REQUIRE_APPROVAL, "matrix[1]"),
        ({"count": 100}, Action.DENY, "default"),
        ({}, Action.REQUIRE_APPROVAL, "matrix[1]"),
        ({"count": "many"}, Action.REQUIRE_APPROVAL, "matrix[1]"),
    ],
)
def test_a_row_whose_condition_is_false_is_skipped(arguments, action, rule):
    verdict = judge(SMALL, "get_user", arguments)
    assert (verdict.action, verdict.rule) == (action, rule)


@each_row(
    ("rows", "may_be_held"),
    [
        ('{when: "args.a > 1", action: require_approval}, {action: allow}', True),
        ('{when: "args.a > 1", action: allow}', True),
        ("{action: allow}, {action: require_approval}", False),
        ('{when: "args.a > 1", action: deny}, {action: allow}', False),
    ],
)
def test_a_tool_may_be_held_if_any_row_can_hold_it(rows, may_be_held):
    made = compiled(f"{{default: require_approval, matrix: [{rows}]}}")
    assert made.may_hold("iam", "get_user", classify({"name": "get_user"}, ())) is may_be_held


def test_a_rule_for_the_tool_replaces_the_matrix():
    rules = "{default: deny, matrix: [{action: allow}], tools: {get_user: {action: require_approval, reason: eyes}}}"
    verdict = judge(rules, "get_user")
    assert (verdict.action, verdict.rule, verdict.reason) == (
        Action.REQUIRE_APPROVAL,
        "tools.get_user",
        "eyes",
    )
    assert judge(rules, "list_users").action is Action.ALLOW


@each_row(
    ("pattern", "server", "tool", "names"),
    [
        ("get_user", "iam", "get_user", True), ("get_*", "iam", "get_user", True), ("iam/get_user", "iam", "get_user", True),
        ("*/get_user", "iam", "get_user", True), ("other/get_user", "iam", "get_user", False), ("Get_user", "iam", "get_user", False),
        ("get_use?", "iam", "get_user", True), ("get", "iam", "get_user", False), ("iam/*", "iam", "x", True),
    ],
)  # fmt: skip
def test_patterns_match_tool_names_exactly(pattern, server, tool, names):
    verdict = judge(f'{{default: allow, tools: {{"{pattern}": {{action: deny}}}}}}', tool, server=server)
    assert (verdict.action is Action.DENY) is names


@each_row(("server", "tool"), [("a", "b__c"), ("a__b", "c"), ("a.b", "c"), ("a", "b.c"), ("a", "c")])
def test_a_rule_for_one_servers_tool_never_matches_another_servers_tool(server, tool):
    places = [("a", "b__c"), ("a__b", "c"), ("a.b", "c"), ("a", "b.c"), ("a", "c")]
    rules = f'{{default: allow, tools: {{"{server}/{tool}": {{action: deny}}}}}}'
    denied = [place for place in places if judge(rules, place[1], server=place[0]).action is Action.DENY]
    assert denied == [(server, tool)]


def test_the_strictest_matching_rule_wins_with_the_strictest_terms():
    rules = """{default: allow, tools: {
        "put_*": {action: require_approval, approvals: 2, approvers: [platform], expire_after: 1h},
        put_user_policy: {action: require_approval, approvers: [bob, carol], expire_after: 5m, approved_for: 1m},
        "*": {action: allow, rate_limit: {max: 1, window: 60}}}}"""
    verdict = judge(rules, "put_user_policy")
    assert verdict.action is Action.REQUIRE_APPROVAL
    terms = verdict.terms
    assert (terms.approvers, terms.needed, terms.expire_after, terms.approved_for) == ({"bob"}, 2, 300, 60)
    assert [limit.max for limit in verdict.limits] == [1]
    assert {match.rule for match in verdict.trace} == {"tools.put_*", "tools.put_user_policy", "tools.*"}


@each_row("order", list(permutations(["allow", "require_approval", "deny"])))
def test_the_strictest_rule_decides_in_any_order(order):
    rules = ", ".join(f"{{action: {action}}}" for action in order)
    assert judge(f"{{default: allow, tools: {{t: [{rules}]}}}}", "t").action is Action.DENY
    patterns = ", ".join(
        f'"{pattern}": {{action: {action}}}' for pattern, action in zip(("t", "t*", "*"), order, strict=True)
    )
    assert judge(f"{{default: allow, tools: {{{patterns}}}}}", "t").action is Action.DENY


def test_rules_without_a_common_approver_leave_no_approvers():
    rules = "{default: deny, tools: {'a*': {action: require_approval, approvers: [alice]}, ab: {action: require_approval, approvers: [bob]}}}"
    assert judge(rules, "ab").terms.approvers == frozenset()


def test_a_rule_without_an_action_only_adds_its_limits_and_schema():
    rules = "{default: deny, matrix: [{category: [Read], action: allow}], tools: {get_user: {rate_limit: {max: 5, window: 60}}}}"
    verdict = judge(rules, "get_user")
    assert (verdict.action, verdict.rule) == (Action.ALLOW, "matrix[0]")
    assert len(verdict.limits) == 1


def test_conditions_choose_between_rules():
    rules = """{default: deny, tools: {create_charge: [
        {when: "args.amount > 50000", action: require_approval, approvals: 2},
        {when: "args.amount <= 50000 && server == 'iam' && agent == 'ci-bot' && risk.category == 'Financial'", action: allow}]}}"""
    made = compiled(rules)
    assert judge(made, "create_charge", {"amount": 60000}).terms.needed == 2
    assert judge(made, "create_charge", {"amount": 10}).action is Action.ALLOW


@each_row("arguments", [{}, {"amount": "many"}, {"amount": None}, {"amount": []}])
def test_a_condition_that_cannot_be_evaluated_restricts_but_never_allows(arguments):
    allow = judge("{default: deny, tools: {pay: {when: 'args.amount < 5', action: allow}}}", "pay", arguments)
    assert (allow.action, allow.rule) == (Action.DENY, "default")
    deny = judge("{default: allow, tools: {pay: {when: 'args.amount > 5', action: deny}}}", "pay", arguments)
    assert deny.action is Action.DENY
    assert "could not be evaluated" in deny.trace[0].note
    assert "is taken as true" in deny.trace[0].note


@each_row(
    ("when", "to", "action"),
    [
        ("args.to.exists(one, !one.endsWith('@example.org'))", ["a@example.org", "b@other.org"], Action.DENY),
        ("args.to.exists(one, !one.endsWith('@example.org'))", ["a@example.org"], Action.ALLOW),
        ("type(args.to) == map || type(args.to) == string", {"a": 1}, Action.DENY),
        ("type(args.to) == map || type(args.to) == string", ["a"], Action.ALLOW),
    ],
)
def test_a_condition_may_check_types_and_every_item_of_a_list(when, to, action):
    rules = f'{{default: allow, tools: {{send: {{when: "{when}", action: deny}}}}}}'
    assert judge(rules, "send", {"to": to}).action is action


def test_a_condition_that_is_not_a_boolean_restricts_but_never_allows():
    assert (
        judge(
            "{default: allow, tools: {pay: {when: 'args.amount', action: deny}}}", "pay", {"amount": 5}
        ).action
        is Action.DENY
    )
    assert (
        judge(
            "{default: deny, tools: {pay: {when: 'args.amount', action: allow}}}", "pay", {"amount": 5}
        ).action
        is Action.DENY
    )


def test_a_rule_with_a_failing_condition_and_no_action_still_adds_its_schema_and_limit():
    rules = """{default: deny, tools: {t: [
        {when: "args.missing > 1", arguments: {properties: {a: {type: integer}}}, rate_limit: {max: 1, window: 1m}},
        {action: allow}]}}"""
    assert judge(rules, "t", {"a": "x"}).action is Action.DENY
    allowed = judge(rules, "t", {"a": 1})
    assert (allowed.action, [limit.max for limit in allowed.limits]) == (Action.ALLOW, [1])


def test_the_schema_of_every_matching_rule_applies_whatever_its_action():
    rules = """{default: allow, tools: {
        "pay*": {arguments: {properties: {amount: {type: integer, minimum: 0, maximum: 9}}, required: [amount], additionalProperties: false}},
        pay: {action: allow}}}"""
    made = compiled(rules)
    assert judge(made, "pay", {"amount": 5}).action is Action.ALLOW
    for arguments, why in [
        ({"amount": -5}, "arguments.amount: -5 is less than the minimum of 0"),
        ({"amount": 10}, "arguments.amount: 10 is greater than the maximum of 9"),
        ({"amount": "5"}, 'arguments.amount: "5" is not of type "integer"'),
        ({"amount": True}, 'arguments.amount: true is not of type "integer"'),
        ({}, 'arguments: "amount" is a required property'),
        ({"amount": 1, "x": 1}, "arguments: Additional properties are not allowed ('x' was unexpected)"),
    ]:
        verdict = judge(made, "pay", arguments)
        assert (verdict.action, verdict.rule, verdict.reason) == (Action.DENY, "tools.pay*", why)


def test_the_path_of_a_violation_includes_list_indexes():
    rules = "{default: allow, tools: {t: {arguments: {properties: {a: {items: {type: string}}}}}}}"
    assert judge(rules, "t", {"a": ["x", 5]}).reason.startswith("arguments.a[1]: 5 is not of type")


def test_a_pattern_that_backtracks_elsewhere_runs_in_linear_time():
    schema = "{default: allow, tools: {t: {arguments: {properties: {a: {pattern: '^(a+)+$'}}}}}}"
    condition = "{default: allow, tools: {t: {when: \"!args.a.matches('^(a+)+$')\", action: deny}}}"
    for rules in (schema, condition):
        assert judge(rules, "t", {"a": "a" * 5000 + "!"}).action is Action.DENY
        assert judge(rules, "t", {"a": "a" * 5000}).action is Action.ALLOW


@each_row("name", ["create_not\u0435", "get user", "get_user\n", "", "x" * 129, "a/b", "\u200bget_user"])
def test_a_call_of_an_invalid_tool_name_is_denied(name):
    assert judge("{default: allow, tools: {'*': {action: allow}}}", name).rule == "name"


def test_hidden_tools_are_denied_before_any_rule_applies():
    made = compiled("{default: allow, hide: ['admin_*', 'iam/secret'], tools: {admin_x: {action: allow}}}")
    assert judge(made, "admin_x").rule == "hide"
    assert made.is_hidden("iam", "secret")
    assert not made.is_hidden("other", "secret")


def test_medium_and_high_risk_writes_and_executes_need_approval():
    rules = "{default: deny, matrix: [{category: [Write, Execute], risk: [Medium, High], action: require_approval}]}"
    assert judge(rules, "put_user_policy").action is Action.REQUIRE_APPROVAL
    assert judge(rules, "policy_generation_start").action is Action.REQUIRE_APPROVAL


def test_the_default_approval_terms_come_from_the_config():
    verdict = judge(
        compiled(
            "{default: require_approval}",
            PEOPLE + "approvals: {requester_may_approve: true, expire_after: 1h, approved_for: 90s}\n",
        ),
        "x",
    )
    terms = verdict.terms
    assert (terms.requester_may_approve, terms.expire_after, terms.approved_for, terms.needed) == (
        True,
        3600,
        90,
        1,
    )
    assert terms.approvers == {"alice", "bob", "carol"}


def test_the_revision_changes_with_the_policy_and_with_the_approvers():
    first, same = compiled("{default: deny}"), compiled("{default: deny}")
    assert first.revision == same.revision
    assert first.revision != compiled("{default: allow}").revision
    assert first.revision != compiled("{default: deny}", "approvers: [{name: alice}]\n").revision


def test_the_cache_of_rules_per_tool_is_bounded():
    made = compiled("{default: deny}")
    found = classify({"name": "t"}, ())
    for n in range(evaluation.MAX_CACHED + 5):
        made.evaluate(CallFacts(server="iam", tool=f"t{n}", agent="a", arguments={}, classification=found))
    assert len(made._rules_cache) == evaluation.MAX_CACHED


def test_a_limit_has_its_scope_and_its_action_when_exceeded():
    rules = "{default: allow, tools: {t: {rate_limit: {max: 3, window: 1m, per: everyone, on_exceed: require_approval}}}}"
    [limit] = judge(rules, "t").limits
    assert (limit.max, limit.window, limit.per, limit.needs_approval, limit.name) == (
        3,
        60,
        "everyone",
        True,
        "tools.t",
    )


# Properties


def is_possible(rule):
    """Whether enough people may approve."""
    groups = {"platform": {"alice", "bob"}}
    named = rule.get("approvers", ["platform", "carol"])
    return rule.get("approvals", 1) <= len(set().union(*(groups.get(name, {name}) for name in named)))


rules = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["allow", "deny", "require_approval"]),
        "when": st.sampled_from(["args.n > 1", "args.n < 3", "tool == 't'", "args.missing", "true"]),
        "approvals": st.integers(1, 3),
        "approvers": st.lists(st.sampled_from(["alice", "bob", "carol", "platform"]), min_size=1, max_size=3),
        "expire_after": st.sampled_from([60, 600, 6000]),
        "rate_limit": st.fixed_dictionaries({"max": st.integers(0, 3), "window": st.just(60)}),
        "arguments": st.sampled_from([{"required": ["n"]}, {"properties": {"n": {"maximum": 2}}}]),
    },
).filter(is_possible)
patterns = st.sampled_from(["t", "*", "t*", "iam/t", "other/t", "u"])
arguments = st.fixed_dictionaries({}, optional={"n": st.one_of(st.integers(0, 4), st.just("x"))})


def policy_of(named, default="allow"):
    tools: dict = {}
    for pattern, rule in named:
        tools.setdefault(pattern, []).append(rule)
    return compiled(
        json.dumps(
            {
                "default": default,
                "matrix": [{"category": ["Write"], "action": "require_approval"}],
                "tools": tools,
            }
        )
    )


def outcome(verdict):
    """The parts of a verdict that must not depend on the order of the rules."""
    limits = sorted((limit.max, limit.window, limit.needs_approval) for limit in verdict.limits)
    return verdict.action, verdict.terms, limits


@given(st.lists(st.tuples(patterns, rules), max_size=4), arguments)
def test_the_order_of_rules_changes_no_verdict(named, args):
    verdicts = [outcome(judge(policy_of(order), "t", args)) for order in list(permutations(named))[:12]]
    assert all(verdict == verdicts[0] for verdict in verdicts)


@example([("t", {"action": "require_approval"})], ("t", {"expire_after": 6000}), {}, "require_approval")
@given(
    st.lists(st.tuples(patterns, rules), max_size=4),
    st.tuples(patterns, rules),
    arguments,
    st.sampled_from(["deny", "require_approval"]),
)
def test_adding_a_restricting_rule_never_makes_a_verdict_laxer(named, added, args, action):
    pattern, rule = added
    before = judge(policy_of(named), "t", args)
    after = judge(policy_of([*named, (pattern, {**rule, "action": action})]), "t", args)
    if any(match.action for match in before.trace if match.rule.startswith("tools")):
        # Rules for the tool applied already, so the matrix was ignored before and is ignored now.
        assert STRICTNESS[after.action] >= STRICTNESS[before.action]
        assert after.terms.needed >= before.terms.needed or after.action is Action.DENY
        assert after.terms.approvers <= before.terms.approvers or after.action is Action.DENY
        if before.action is Action.REQUIRE_APPROVAL and after.action is before.action:
            assert after.terms.expire_after <= before.terms.expire_after
    else:
        assert STRICTNESS[after.action] >= min(STRICTNESS[before.action], STRICTNESS[Action(action)])


def test_every_category_can_be_matched():
    for category in Category:
        assert compiled(f"{{default: deny, matrix: [{{category: [{category}], action: allow}}]}}")


SPEND = "{default: allow, tools: {pay: {spend: {of: args.amount, max: 100, window: 1d, on_exceed: require_approval, shared: true}}}}"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "args.amount must be a number, because it is added up"),
        ({"amount": "7"}, "args.amount must be a number, because it is added up"),
        ({"amount": -7}, "args.amount must not be negative, because it is added up"),
    ],
)
def test_an_amount_that_cannot_be_added_up_is_denied_with_the_reason(arguments, why):
    verdict = judge(SPEND, "pay", arguments)
    assert (verdict.action, verdict.rule, verdict.reason) == (Action.DENY, "tools.pay", why)


def test_a_spend_limit_carries_the_amount_of_this_call():
    verdict = judge(SPEND, "pay", {"amount": 30})
    [limit] = verdict.limits
    assert (verdict.action, limit.name, limit.amount, limit.needs_approval, limit.shared) == (
        Action.ALLOW, "tools.pay.spend", 30, True, True,
    )  # fmt: skip


def test_a_tool_whose_limit_requires_approval_may_be_held():
    found = classify({"name": "pay"}, ())
    assert compiled(SPEND).may_hold("iam", "pay", found)
    assert not compiled(SPEND.replace("on_exceed: require_approval, ", "")).may_hold("iam", "pay", found)


@each_row(
    ("spend", "path"),
    [
        ("{of: amount, max: 1, window: 1d}", "policy.tools.pay.spend.of"),
        ("{of: args., max: 1, window: 1d}", "policy.tools.pay.spend.of"),
        ("{of: args.a, max: -1, window: 1d}", "policy.tools.pay.spend.max"),
        ("{of: args.a, max: .nan, window: 1d}", "policy.tools.pay.spend.max"),
        ("{of: args.a, max: .inf, window: 1d}", "policy.tools.pay.spend.max"),
        ("{of: args.a, max: 1, window: 1w}", "policy.tools.pay.spend.window"),
    ],
)
def test_an_invalid_spend_limit_is_a_config_problem(spend, path):
    with pytest.raises(ConfigProblems) as caught:
        compiled(f"{{default: deny, tools: {{pay: {{spend: {spend}}}}}}}")
    assert [format_path(problem.path) for problem in caught.value.problems] == [path]
