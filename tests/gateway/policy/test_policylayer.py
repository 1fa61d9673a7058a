"""The policy importer: every dialect is translated, compiled and evaluated, and never becomes more permissive."""

import json
import re
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app import config
from gateway.errors import UserError
from gateway.policy.compiling import compile_policy
from gateway.policy.conditions import CelExpression
from gateway.policy.evaluation import Action, CallFacts
from gateway.policy.limits import LimitUser, Windows
from gateway.policy.policylayer import translation
from gateway.policy.policylayer.conditions import TranslationError, condition_to_cel, negation_to_cel
from gateway.policy.policylayer.translation import translate
from gateway.tools.classify.risk import classify
from rows import each_row

ALLOWED, HELD, DENIED = "allowed", "held", "denied"


def loaded(made):
    """Return a config with an imported policy."""
    return config.parse_config(f"servers: {{iam: {{command: [x]}}}}\n{made.yaml}", {}, str)


class Gate:
    """Gives our verdicts on a sequence of calls, with limits applied."""

    def __init__(self, text: str):
        self.made = translate(text, "their.yaml")
        self.policy, self.windows = compile_policy(loaded(self.made)), Windows()

    def call(self, tool, arguments=None, now=0.0, agent="a"):
        facts = CallFacts(
            server="iam", tool=tool, agent=agent, arguments=arguments or {}, classification=classify({"name": tool}, ())
        )  # fmt: skip
        verdict = self.policy.evaluate(facts)
        if verdict.action is Action.DENY:
            return DENIED
        scope = LimitUser(agent=agent, session=agent, server="iam", tool=tool)
        if (exceeded := self.windows.take(verdict.limits, scope, now)) is not None:
            return HELD if exceeded.limit.needs_approval and verdict.action is Action.ALLOW else DENIED
        return ALLOWED if verdict.action is Action.ALLOW else HELD


def denial_text(gate, tool, arguments=None):
    facts = CallFacts(
        server="iam", tool=tool, agent="a", arguments=arguments or {}, classification=classify({"name": tool}, ())
    )  # fmt: skip
    return gate.policy.evaluate(facts).reason


# The dialects, each with a table of calls and verdicts

INTERCEPT = """
version: "1"
description: What the shop's agents may do
default: deny
hide: [wipe_all]
tools:
  list_orders:
    rules: []
  charge:
    rules:
      - name: one charge
        conditions:
          - {path: args.amount, op: lte, value: 500}
          - {path: args.currency, op: in, value: [usd, eur]}
        on_deny: Charges over 500 go through finance
      - name: spend of a day
        conditions: [{path: state.charge.spent, op: lte, value: 1000}]
        state: {counter: spent, window: day, increment_from: args.amount}
        on_deny: The budget of the day is used up
  refund:
    rules:
      - name: large ones
        action: require_approval
        conditions: [{path: args.amount, op: gt, value: 100}]
        approval_timeout: 1h30m
  drop:
    rules: [{name: never, action: deny, on_deny: Not by agents}]
  post:
    rules:
      - name: hourly
        conditions: [{path: state.post.n, op: lt, value: 3}]
        state: {counter: n, window: hour}
  "*":
    rules:
      - {name: all together, rate_limit: 20/minute}
"""

INTERCEPT_CALLS = [
    ("list_orders", {}, ALLOWED),
    ("unlisted", {}, DENIED),
    ("wipe_all", {}, DENIED),
    ("charge", {"amount": 500, "currency": "usd"}, ALLOWED),
    ("charge", {"amount": 501, "currency": "usd"}, DENIED),
    ("charge", {"amount": "5", "currency": "usd"}, DENIED),
    ("charge", {"amount": 5}, DENIED),
    ("charge", {"amount": 5, "currency": "gbp"}, DENIED),
    ("charge", {"amount": -5, "currency": "usd"}, DENIED),
    ("charge", {"amount": 500, "currency": "eur"}, ALLOWED),
    ("charge", {"amount": 1, "currency": "eur"}, DENIED),
    ("refund", {"amount": 100}, ALLOWED),
    ("refund", {"amount": 101}, HELD),
    ("refund", {}, HELD),
    ("drop", {}, DENIED),
    ("post", {}, ALLOWED),
    ("post", {}, ALLOWED),
    ("post", {}, DENIED),
]

HOSTED = json.dumps({
    "version": "1",
    "default": "deny",
    "hide": ["delete_account"],
    "all_tools": {"limits": [{"counter": "all", "window": "minute", "max": 7, "scope": "grant"}]},
    "tools": {
        "list_customers": {},
        "refund": {
            "require": [{"path": "args.reason", "op": "exists", "value": True}],
            "deny_if": [
                {"path": "args.amount", "op": "gt", "value": 100, "on_deny": "Too much"},
                {"path": "args.force", "op": "exists", "value": True},
            ],
            "limits": [{"counter": "sum", "window": "day", "max": 150, "increment_from": "args.amount"}],
        },
        "send": {"limits": [{"counter": "send_per_hour", "window": "hour", "max": 1, "scope": "grant"}]},
    },
})  # fmt: skip

HOSTED_CALLS = [
    ("delete_account", {}, DENIED),
    ("other", {}, DENIED),
    ("list_customers", {}, ALLOWED),
    ("refund", {"amount": 100, "reason": "broken"}, ALLOWED),
    ("refund", {"amount": 51, "reason": "broken"}, DENIED),
    ("refund", {"amount": 101, "reason": "broken"}, DENIED),
    ("refund", {"amount": 10}, DENIED),
    ("refund", {"amount": 10, "reason": None}, DENIED),
    ("refund", {"reason": "broken"}, DENIED),
    ("refund", {"amount": 1, "reason": "broken", "force": False}, DENIED),
    ("send", {}, ALLOWED),
    ("send", {}, DENIED),
    ("list_customers", {}, ALLOWED),
    ("list_customers", {}, ALLOWED),
    ("list_customers", {}, ALLOWED),
    ("list_customers", {}, ALLOWED),
    ("list_customers", {}, DENIED),
]

PAGES = """
default: require_approval
tools:
  get_user: {action: allow, rate_limit: {max: 2, window: 60}}
  put_user_policy: {action: require_approval, reason: Look at the policy first}
  drop_table:
    rules:
      - {action: deny, reason: Blocked by default}
  search: {action: allow, rate_limit: {max: 1, window: hour, on_exceed: require_approval}}
"""

PAGES_CALLS = [
    ("get_user", {}, ALLOWED),
    ("get_user", {}, ALLOWED),
    ("get_user", {}, DENIED),
    ("put_user_policy", {}, HELD),
    ("drop_table", {}, DENIED),
    ("search", {}, ALLOWED),
    ("search", {}, HELD),
    ("other", {}, HELD),
]


@pytest.mark.parametrize(
    ("text", "calls"), [(INTERCEPT, INTERCEPT_CALLS), (HOSTED, HOSTED_CALLS), (PAGES, PAGES_CALLS)]
)
def test_an_imported_policy_of_every_dialect_gives_the_same_verdicts(text, calls):
    gate = Gate(text)
    assert gate.made.notes == ()
    assert [(tool, arguments, gate.call(tool, arguments)) for tool, arguments, _ in calls] == calls


def test_the_comments_reasons_and_timeouts_of_the_original_are_kept():
    gate = Gate(INTERCEPT)
    assert denial_text(gate, "drop") == "Not by agents"
    assert (
        denial_text(gate, "charge", {"amount": 501, "currency": "usd"})
        == "Charges over 500 go through finance"
    )
    text = gate.made.yaml
    assert text.startswith(
        "# Imported from their.yaml by okayed import.\n# What the shop's agents may do\npolicy:\n"
    )
    for kept in (
        "      # spend of a day\n",
        "expire_after: 5400s",
        "reason: The budget of the day is used up",
    ):
        assert kept in text


def test_a_limit_on_all_tools_is_one_shared_limit_for_everyone():
    gate = Gate('version: "1"\ntools: {"*": {rules: [{name: n, rate_limit: 2/minute}]}}')
    assert [gate.call("a"), gate.call("b", agent="b"), gate.call("c", now=59), gate.call("c", now=60)] == [
        ALLOWED, ALLOWED, DENIED, ALLOWED,
    ]  # fmt: skip


def test_a_snippet_without_a_version_can_be_imported():
    gate = Gate("comment:\n  rules:\n  - rate_limit: 1/hour\n")
    assert [gate.call("comment"), gate.call("comment"), gate.call("x")] == [ALLOWED, DENIED, HELD]
    assert gate.made.notes == ()
    assert "# It has no default, so tools without a rule require approval.\n" in gate.made.yaml


@each_row("text", ["", "  \n", "[1]", "a: [b", "servers: {}\n", "servers: {x: {command: [y]}}\n"])
def test_a_file_that_is_not_a_policy_is_refused_in_one_sentence(text):
    with pytest.raises(UserError):
        translate(text, "their.yaml")


# Features without an equal

RULE = 'version: "1"\ntools: {t: {rules: [%s]}}'
CONDITION = RULE % "{name: n, conditions: [{path: %s, op: %s, value: %s}]}"

NO_EQUAL = {
    CONDITION % ("args.x", "like", "5"): (HELD, "the operator 'like' is not known"),
    CONDITION % ("args.x", "neq", "[1]"): (HELD, "a mapping or list"),
    CONDITION % ("args.x", "not_in", "[1, a]"): (HELD, "mixes text and numbers"),
    CONDITION % ("args.x", "in", "a"): (HELD, "not a list"),
    CONDITION % ("args.x", "lt", "9007199254740993"): (HELD, "compares with 9007199254740993"),
    CONDITION % ("args.x", "lt", "a"): (HELD, "not a number"),
    CONDITION % ("args.x", "eq", "{a: 1}"): (HELD, "a mapping or list"),
    CONDITION % ("args.x", "exists", "1"): (HELD, "not true or false"),
    CONDITION % ("args.x", "regex", "5"): (HELD, "not text"),
    CONDITION % ("args.x", "regex", "'[[:alpha:]]'"): (HELD, "may mean something else"),
    CONDITION % ("args.x", "regex", "'[a&&b]'"): (HELD, "may mean something else"),
    CONDITION % ("tool", "eq", "a"): (HELD, "tool is not an argument"),
    CONDITION % ("state.t.n", "lt", "5"): (HELD, "its rule has no counter"),
    RULE % "{name: n, conditions: [x]}": (HELD, "not a condition"),
    RULE % "{name: n, conditions: [{path: args.x, op: eq, value: 1, unless: 2}]}": (HELD, "unless"),
    RULE % "{name: n, action: audit}": (HELD, "'audit'"),
    RULE % "{name: n, action: allow, conditions: [{path: args.x, op: eq, value: 1}]}": (HELD, "an allow with conditions is not supported; approval is required"),
    RULE % "{name: n, action: allow, state: {counter: c, window: day}}": (HELD, "an allow with a counter is not supported"),
    RULE % "{name: n, state: {counter: c, window: day}}": (HELD, "None"),
    RULE % "{name: n, action: [deny]}": (HELD, "['deny']"),
    RULE % "{name: n, rate_limit: 5/fortnight}": (HELD, "10/minute"),
    RULE % f"{{name: n, rate_limit: {'9' * 5000}/hour}}": (HELD, "10/minute"),
    RULE % "{name: n, rate_limit: {max: 1.0e+300, window: 60}}": (HELD, "not a limit"),
    RULE % "{name: n, rate_limit: {max: 5, window: 60, per: [agent]}}": (ALLOWED, None),
    RULE % "{name: n, rate_limit: {max: 5, window: fortnight}}": (HELD, "not a window"),
    RULE % "{name: n, rate_limit: {max: x, window: 60}}": (HELD, "not a limit"),
    RULE % "{name: n, rate_limit: {max: 5, window: 60, burst: 2}}": (HELD, "burst"),
    RULE % "{name: n, rate_limit: 5/hour}, {name: m, rate_limit: 6/hour}": (HELD, "same counter"),
    RULE % "{name: n, rate_limit: 5/hour, quorum: 2}": (HELD, "quorum"),
    RULE % "x": (HELD, "not a mapping"),
    RULE % "{name: n, rate_limit: {max: 5, window: 60, per: session}}, {name: m}": (ALLOWED, None),
    RULE % "{name: n, action: require_approval, approval_timeout: soon}": (HELD, "'soon' is not a duration"),
    RULE % "{name: n, action: require_approval, approval_timeout: 0s}": (HELD, "'0s' is not a duration"),
    RULE % "{name: n, action: require_approval, approval_timeout: 0.0000001s}": (HELD, "is not a duration"),
    RULE % f"{{name: n, action: require_approval, approval_timeout: {'9' * 400}h}}": (HELD, "is too long"),
    RULE % "{name: n, action: require_approval, state: {counter: c}}": (HELD, "has no counter"),
    RULE % "{name: n, action: require_approval, conditions: [{path: args.x, op: odd, value: 1}]}": (HELD, "taken as true"),
    RULE % "{name: n, action: deny, conditions: [{path: args.x, op: eq, value: 1}]}": (DENIED, "they are ignored"),
    RULE % "{name: n, conditions: [{path: args.x, op: eq, value: 1}], state: {counter: c, window: day}}": (ALLOWED, "has no effect"),
    'version: "2"\ntools: {t: {}}': (HELD, "only version 1"),
    'version: "1"\ntools: {t: {}}\nidentities: [x]': (HELD, "identities: this key is unknown"),
    'version: "1"\ntools: {t: {owner: me}}': (HELD, "tools.t.owner"),
    'version: "1"\ntools: {t: 5}': (HELD, "tools.t: this is not a mapping"),
    'version: "1"\ntools: [t]': (HELD, "tools: this is not a mapping"),
    "default: block\ntools: {}": (DENIED, "'block' is unknown"),
    "default: [deny]\ntools: {}": (DENIED, "['deny'] is unknown"),
    "default: require_approval\ntools: {t: {rate_limit: {max: 10, window: 60}}}": (HELD, None),
    "default: require_approval\ntools: {t: {rules: [{conditions: [{path: args.x, op: eq, value: 1}]}]}}": (HELD, None),
    'version: "1"\ntools: {t: {}}\napprovals: {notify: {}}': (ALLOWED, "set times under approvals"),
    'version: "1"\ntools: {"sp ace": {}}': (ALLOWED, "no tool can have this name"),
    'version: "1"\nhide: ["", 5]': (ALLOWED, "no tool can have the name ''"),
    'version: "1"\ntools: {"t*": {action: deny}}': (DENIED, "translated as for a pattern"),
    'version: "1"\ntools: {"t*": {action: allow}}': (HELD, "an allow for a pattern is not supported; approval is required"),
    'default: deny\ntools: {"t*": {action: allow}}': (DENIED, "approval is required for listed tools, and others are denied"),
    'default: deny\ntools: {"t*": {action: allow}, t: {action: audit}}': (HELD, "tools.t: the action 'audit' is not supported; approval is required"),
    "default: deny\ntools: {t: {}}\nidentities: [x]": (HELD, "identities: this key is unknown; approval is required for listed tools"),
    'version: "1"\ntools: {t: {deny_if: [{path: args.x, op: odd, value: 1}]}}': (HELD, "'odd'"),
    'version: "1"\ntools: {t: {deny_if: [{path: args.x}]}}': (HELD, "path, op and value"),
    'version: "1"\ntools: {t: {limits: [{max: 1, window: day, scope: org, unless: x}]}}': (HELD, "unless"),
    'version: "1"\ntools: {t: {limits: [{max: 1, window: day, counter: c}]}, u: {limits: [{max: 1, window: day, counter: c}]}}': (ALLOWED, "same counter"),
}  # fmt: skip


@each_row(("text", "row"), NO_EQUAL.items())
def test_a_rule_without_an_equal_is_noted_in_place_and_never_more_permissive(text, row):
    fate, why = row
    gate = Gate(text)
    assert any(why in note for note in gate.made.notes) if why else gate.made.notes == ()
    for note in gate.made.notes:
        assert f"# NO EQUIVALENT: {note}\n" in gate.made.yaml
    assert gate.call("t", {"x": 1}) == fate


STATES = {
    "lt, value: 0}], state: {counter: n, window: hour}": (DENIED, ()),
    "lte, value: 5}], state: {counter: n, window: hour, increment: 3}": (ALLOWED, ()),
    "gt, value: 5}], state: {counter: n, window: hour}": (HELD, ("not by gt 5",)),
    "lte, value: x}], state: {counter: n, window: hour}": (HELD, ("not by lte 'x'",)),
    "lte, value: 5}], state: {counter: m, window: hour}": (HELD, ("of another rule",)),
    "lte, value: 5}], state: {counter: n, window: hour, increment: -3}": (HELD, ("each call adds -3",)),
    "lte, value: 5}], state: {counter: n, window: hour, increment_from: price}": (HELD, ("can be added up",)),
    "lte, value: 5}], state: {counter: n, window: hour, reset: x}": (HELD, ("the key reset",)),
    "lte, value: 5, only_if: {agent: x}}], state: {counter: n, window: hour}": (HELD, ("the key only_if",)),
    "[lte], value: 5}], state: {counter: n, window: hour}": (HELD, ("not by ['lte'] 5",)),
}


@each_row(("state", "row"), STATES.items())
def test_a_counter_that_bounds_its_own_rule_becomes_a_limit(state, row):
    fate, whys = row
    gate = Gate(RULE % f"{{name: n, conditions: [{{path: state.t.n, op: {state}}}")
    assert gate.call("t") == fate
    assert len(gate.made.notes) == len(whys)
    assert all(why in note for why, note in zip(whys, gate.made.notes, strict=True))


def test_a_counter_that_adds_three_per_call_allows_one_call_up_to_five():
    gate = Gate(
        RULE
        % "{name: n, conditions: [{path: state.t.n, op: lte, value: 5}], state: {counter: n, window: hour, increment: 3}}"
    )
    assert [gate.call("t"), gate.call("t")] == [ALLOWED, DENIED]


def test_a_pattern_that_requires_approval_admits_no_tool_that_the_default_denies():
    gate = Gate(
        'version: "1"\ndefault: deny\ntools: {t: {}, "*": {rules: [{name: n, action: require_approval}]}, "u*": {odd: 1}}'
    )
    assert [gate.call("t"), gate.call("u1"), gate.call("x")] == [HELD, DENIED, DENIED]
    gate = Gate(
        'version: "1"\ndefault: deny\ntools: {t: {}, "*": {rules: [{name: n, action: require_approval, conditions: [{path: args.x, op: eq, value: 1}]}]}}'
    )
    assert [gate.call("t", {"x": 1}), gate.call("t", {"x": 2}), gate.call("x", {"x": 1})] == [
        HELD,
        ALLOWED,
        DENIED,
    ]


def test_a_deny_condition_on_a_missing_argument_requires_approval():
    gate = Gate('version: "1"\ntools: {t: {deny_if: [{path: args.x.y, op: eq, value: prod}]}}')
    calls = [{"x": {"y": "prod"}}, {"x": {"y": "test"}}, {"x": {"y": 1}}, {"x": {}}, {"x": 1}, {}]
    assert [gate.call("t", arguments) for arguments in calls] == [DENIED, ALLOWED, DENIED, HELD, HELD, HELD]


def test_texts_of_the_original_are_never_parsed_as_yaml_or_expanded():
    evil = "a\\n    x: 1\\u2028  y\\u0000${HOME} ${file:/etc/passwd}"
    gate = Gate(
        RULE
        % f'{{name: "{evil}", action: deny, on_deny: "{evil}"}}, {{name: n, conditions: [{{path: args.x, op: eq, value: "${{HOME}}"}}]}}'
    )
    assert denial_text(gate, "t") == "a x: 1 y $ {HOME} $ {file:/etc/passwd}"
    gate = Gate(CONDITION % ("args.x", "eq", '"${HOME}"'))
    assert [gate.call("t", {"x": "${HOME}"}), gate.call("t", {"x": "/root"})] == [ALLOWED, DENIED]


def test_a_condition_may_name_an_argument_with_any_characters():
    gate = Gate(CONDITION % ("args.user-name.in.a b", "exists", "true"))
    assert gate.call("t", {"user-name": {"in": {"a b": 1}}}) == ALLOWED
    assert gate.call("t", {"user-name": {"in": {}}}) == DENIED


REGEXES = [
    (r"^feat/", "feat/x", "a feat/"),
    (r"^\w+$", "abc_1", "é"),
    (r"^\d+$", "12", "٣"),
    (r"^[\d-]+$", "1-2", "٣"),
    (r"^\S+\s\S+$", "a b", "a\u00a0b"),
    (r"^\D\W$", "a-", "1-"),
    (r"\bprod\b", "a prod b", "aprod"),
    (r"^a{2,3}$", "aa", "a"),
    (r"^a{,3}$", "a{,3}", "aa"),
    (r"^(?i)(?:a|b)(?P<n>c)$", "AC", "ad"),
    (r"^[^\s\\]+\.$", "ab.", "a b."),
    (r"^a\<b$", "a<b", "ab"),
]


@each_row(("pattern", "good", "bad"), REGEXES)
def test_a_regex_keeps_its_meaning(pattern, good, bad):
    gate = Gate(CONDITION % ("args.x", "regex", json.dumps(pattern)))
    assert gate.made.notes == ()
    assert [gate.call("t", {"x": good}), gate.call("t", {"x": bad}), gate.call("t", {"x": 5})] == [
        ALLOWED,
        DENIED,
        DENIED,
    ]


OPERATORS = [
    ("contains", "test", ["a test", ["test"]], ["tes", ["tests"], {"test": 1}, 5]),
    ("contains", 5, [[5], [5.0]], ["5", ["6"], {"5": 1}]),
    ("not_contains", "test", ["tes", ["a"], []], ["a test", ["test"], [1], {"test": 1}]),
    ("not_contains", 5, [[6], []], [[5.0], ["6"], "5"]),
    ("neq", "5", ["6"], ["5", 5, None]),
    ("neq", 5, [6, 5.5], [5.0, "5", "6"]),
    ("neq", True, [False], [True, "true"]),
    ("not_in", ["a", "b"], ["c"], ["a", 1]),
    ("not_in", [1, 2], [3], [1.0, "1", "3"]),
    ("eq", None, [None], ["<nil>", 0]),
    ("exists", False, [None], [0, "", False]),
]


@each_row(("op", "value", "good", "bad"), OPERATORS)
def test_operators_allow_only_certain_matches(op, value, good, bad):
    gate = Gate(CONDITION % ("args.x", op, json.dumps(value)))
    assert [gate.call("t", {"x": x}) for x in good] == [ALLOWED] * len(good)
    assert [gate.call("t", {"x": x}) for x in bad] == [DENIED] * len(bad)


# Arbitrary files

ODD = [2**64, 1e300, -0.5, "9" * 400 + "h", "(", "***", "${X}", "\0", "lte", "args.x", "state.t.n", "10/hour"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(ODD) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def some_of(known, **likely):
    """Generate mappings of some of these keys: each with a likely value or any value."""
    return st.fixed_dictionaries(
        {}, optional={key: likely.get(key, st.nothing()) | ANYTHING for key in sorted(known)}
    )


def up_to_two(items):
    return st.lists(items, max_size=2)


ANY_CONDITION = some_of(
    translation._CONDITION, path=st.sampled_from(["args.x", "state.t.n"]), op=st.sampled_from(["lte", "in", "regex", "exists"])
)  # fmt: skip
ANY_STATE = some_of(translation._STATE, counter=st.just("n"), window=st.just("hour"))
ANY_RULE = {
    "action": st.sampled_from(["evaluate", "allow", "deny", "require_approval"]),
    "conditions": up_to_two(ANY_CONDITION),
    "state": ANY_STATE,
    "rate_limit": some_of(translation._RATE, window=st.just("hour")),
}
ANY_TOOL = some_of(
    translation._TOOL,
    **ANY_RULE,
    rules=up_to_two(some_of(translation._RULE, **ANY_RULE)),
    require=up_to_two(ANY_CONDITION),
    deny_if=up_to_two(ANY_CONDITION),
    limits=up_to_two(some_of(translation._LIMIT, window=st.just("hour"))),
)
ANY_POLICY = some_of(
    translation._TOP, tools=st.dictionaries(st.sampled_from(["t", "*"]), ANY_TOOL, max_size=2), all_tools=ANY_TOOL
)  # fmt: skip


@settings(max_examples=60)
@given(ANY_POLICY)
def test_any_file_becomes_a_valid_policy_or_is_refused_in_one_sentence(policy):
    try:
        made = translate(json.dumps(policy), "their.yaml")
    except UserError:
        return
    compile_policy(loaded(made))


# Never more permissive than a small model of Intercept

SECONDS = {"minute": 60, "hour": 3600, "day": 86400}


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def printed(value):
    """Return a value as Go prints it; Go reads every number of a call as a float."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{float(value):.17g}"
        case list():
            return f"[{' '.join(map(printed, value))}]"
        case dict():
            return f"map[{' '.join(f'{k}:{printed(v)}' for k, v in sorted(value.items()))}]"
    return value


def equal(a, b):
    return float(a) == float(b) if is_number(a) and is_number(b) else printed(a) == printed(b)


def contains(a, b):
    if isinstance(a, str):
        return isinstance(b, str) and b in a
    return isinstance(a, list) and any(equal(item, b) for item in a)


THEIRS = {
    "eq": equal,
    "neq": lambda a, b: not equal(a, b),
    "in": lambda a, b: any(equal(a, item) for item in b),
    "not_in": lambda a, b: not any(equal(a, item) for item in b),
    "lt": lambda a, b: is_number(a) and float(a) < float(b),
    "lte": lambda a, b: is_number(a) and float(a) <= float(b),
    "gt": lambda a, b: is_number(a) and float(a) > float(b),
    "gte": lambda a, b: is_number(a) and float(a) >= float(b),
    "regex": lambda a, b: isinstance(a, str) and bool(re.search(b.replace("$", r"\Z"), a, re.ASCII)),
    "contains": contains,
}


class Intercept:
    """A small model of the Intercept proxy: conditions, then reservations committed with the call."""

    def __init__(self, policy):
        self.policy, self.counters = policy, {}

    def allows(self, tool, arguments, now):
        policy = self.policy
        if {tool, "*"} & set(policy["hide"]):
            return False
        if policy["default"] == "deny" and tool not in policy["tools"]:
            return False
        rules = [
            (name, rule) for name in (tool, "*") for rule in policy["tools"].get(name, {}).get("rules", [])
        ]
        if not all(self.passes(name, rule, arguments, now) for name, rule in rules):
            return False
        return self.reserved(
            [(name, *self.state(rule)) for name, rule in rules if self.state(rule)], arguments, now
        )

    @staticmethod
    def state(rule):
        if "rate_limit" in rule:
            most, window = rule["rate_limit"].split("/")
            return {"counter": f"_rate_{window}", "window": window}, int(most)
        if "state" not in rule:
            return None
        bounds = [c for c in rule["conditions"] if c["path"].startswith("state.")]
        [bound] = bounds
        return rule["state"], int(bound["value"]) - (bound["op"] == "lt")

    def used(self, name, state, now):
        return self.counters.get((name, state["counter"], now // SECONDS[state["window"]]), 0)

    def passes(self, name, rule, arguments, now):
        if rule.get("action") == "deny":
            return False
        return all(
            self.holds(name, rule, condition, arguments, now) for condition in rule.get("conditions", [])
        )

    def holds(self, name, rule, condition, arguments, now):
        op, value = condition["op"], condition["value"]
        if condition["path"].startswith("state."):
            return THEIRS[op](self.used(name, rule["state"], now), value)
        found, there = arguments, True
        for part in condition["path"].split(".")[1:]:
            there = there and isinstance(found, dict) and part in found
            found = found[part] if there else None
        if op == "exists":
            return (there and found is not None) == value
        return there and THEIRS[op](found, value)

    def reserved(self, states, arguments, now):
        taken = dict(self.counters)
        for name, state, most in states:
            amount = (
                arguments.get(state["increment_from"].split(".")[1])
                if "increment_from" in state
                else state.get("increment", 1)
            )
            if not is_number(amount):
                return False
            key = (name, state["counter"], now // SECONDS[state["window"]])
            taken[key] = taken.get(key, 0) + floor(amount)
            if taken[key] > most:
                return False
        self.counters = taken
        return True


VALUES = st.sampled_from([
    "5", 5, 5.0, 0, -1, 0.5, 7, True, False, "true", None, "<nil>", "main", "mainly", "", "é", "٣", "a\n", "[5]",
    [], ["5"], [5], ["main", 7], {}, {"y": 5}, {"y": "main"}, 2**53, 2**53 + 1,
])  # fmt: skip
NUMBERS = st.sampled_from([5, 5.0, 0, -1, 0.5, 7, 2**53, 2**53 + 1])
PATTERNS = st.sampled_from(
    ["^m", r"^\w+$", r"\d", "main$", r"^[^\s]+$", "é", r"\bmain\b", "", "^.$", "^[a-z5]*$"]
)
VALUE_OF = {
    "eq": VALUES, "neq": VALUES, "in": st.lists(VALUES, max_size=3), "not_in": st.lists(VALUES, max_size=3),
    "lt": NUMBERS, "lte": NUMBERS, "gt": NUMBERS, "gte": NUMBERS, "regex": PATTERNS, "contains": VALUES,
    "exists": st.booleans(),
}  # fmt: skip
CONDITIONS = st.one_of([
    st.fixed_dictionaries({"path": st.sampled_from(["args.x", "args.x.y", "args.z-1"]), "op": st.just(op), "value": value})
    for op, value in VALUE_OF.items()
])  # fmt: skip
WINDOW = st.sampled_from(list(SECONDS))


@st.composite
def rules(draw, name, kinds):
    made = []
    for number in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(kinds))
        if kind == "deny":
            made.append({"action": "deny"})
        elif kind == "conditions":
            made.append({"conditions": draw(st.lists(CONDITIONS, min_size=1, max_size=2))})
        elif kind == "rate":
            made.append({"rate_limit": f"{draw(st.integers(1, 3))}/{draw(WINDOW)}"})
        else:
            path = f"state.{'_global' if name == '*' else name}.c{number}"
            bound = {
                "path": path,
                "op": draw(st.sampled_from(["lt", "lte"])),
                "value": draw(st.integers(0, 9)),
            }
            state = {"counter": f"c{number}", "window": draw(WINDOW)}
            state |= draw(st.sampled_from([{}, {"increment": 2}, {"increment_from": "args.x"}]))
            besides = draw(st.lists(CONDITIONS, max_size=1)) if "conditions" in kinds else []
            made.append({"conditions": [*besides, bound], "state": state})
    windows = [rule["rate_limit"].split("/")[1] for rule in made if "rate_limit" in rule]
    if len(windows) != len(set(windows)):  # Intercept refuses a duplicate counter
        made = [rule for rule in made if "rate_limit" not in rule]
    return [{"name": f"r{number}", **rule} for number, rule in enumerate(made)]


@st.composite
def policies(draw, kinds):
    names = draw(st.sets(st.sampled_from(["a", "b", "*"])))
    return {
        "version": "1",
        "default": draw(st.sampled_from(["allow", "deny"])),
        "hide": draw(st.lists(st.sampled_from(["b", "c"]), max_size=1)),
        "tools": {name: {"rules": draw(rules(name, kinds))} for name in sorted(names)},
    }


CALLS = st.lists(
    st.tuples(
        st.integers(0, 70),
        st.sampled_from("aabc"),
        st.dictionaries(st.sampled_from(["x", "z-1"]), VALUES, max_size=2),
    ),
    max_size=8,
)
SPENT = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 40]), st.sampled_from("ab"), st.fixed_dictionaries({"x": st.sampled_from([0, 1, 2.5, 4])})),
    min_size=4, max_size=12,
)  # fmt: skip


@settings(max_examples=1500)
@given(CONDITIONS, st.data())
def test_a_condition_in_cel_is_true_only_where_the_original_was(condition, data):
    path, op, value = condition["path"], condition["op"], condition["value"]
    near = st.sampled_from(
        [
            value,
            printed(value) if not isinstance(value, list) else "",
            *([*value] if isinstance(value, list) else []),
        ]
    )
    x = data.draw(st.one_of(VALUES, near, near.map(lambda one: [one]), near.map(lambda one: {"y": one})))
    arguments = data.draw(st.sampled_from([{"x": x}, {"z-1": x}, {"x": {"y": x}}]))
    so = Intercept({}).holds("t", {}, condition, arguments, 0)
    for to_cel, wanted in ((condition_to_cel, True), (negation_to_cel, False)):
        try:
            source = to_cel(path, op, value)
        except TranslationError:
            continue
        if CelExpression(source)({"args": arguments}) is True:
            assert so is wanted, source


EVERY_KIND, LIMITS = ("deny", "conditions", "conditions", "rate", "state"), ("rate", "state")


@settings(max_examples=150)
@given(st.one_of(st.tuples(policies(EVERY_KIND), CALLS), st.tuples(policies(LIMITS), SPENT)))
def test_a_call_that_the_original_denies_is_never_allowed(case):
    policy, calls = case
    gate, original, now = Gate(json.dumps(policy)), Intercept(policy), 86_390
    for step, tool, arguments in calls:
        now += step
        if gate.call(tool, arguments, now) == ALLOWED:
            assert original.allows(tool, arguments, now)
