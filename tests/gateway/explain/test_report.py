"""The report on a tool matches its classification, is safe to show, and proposes config that does what its text says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approvals.impact import describe_impact
from gateway.explain import report
from gateway.explain.advice import ADVICE
from gateway.explain.report import build_report
from gateway.policy.evaluation import Action
from gateway.tools.catalogue import Override, apply_override
from gateway.tools.classify.risk import Category, Risk, Severity, classify
from replacing import replace
from rows import each_row
from sample_tools import DEFINITIONS, SERVER, classify_tool, evaluate_call, load_config

NOW = load_config("policy:\n  matrix: [{category: [Read], action: allow, rate_limit: {max: 60, window: 60}}]")
NAMES = [definition["name"] for definition in DEFINITIONS]


def report_on(definition, options=NOW, classification=None, **more):
    classification = classification or classify_tool(definition)
    return build_report(
        SERVER,
        definition,
        classification,
        evaluate_call(options, definition, classification=classification),
        **more,
    )


def text(described):
    return "\n".join(report.format_report(described))


def tool(name):
    return next(definition for definition in DEFINITIONS if definition["name"] == name)


def load_proposed(name, number, default="require_approval"):
    return load_config(report_on(tool(name)).answers[number].yaml, default=default)


def test_put_user_policy_is_a_write_of_medium_risk_and_high_severity():
    described = text(report_on({"name": "put_user_policy"}))
    for sentence in (
        'The server gives no description. The name "put user policy" suggests a Write: it creates or changes something.',
        "Changes data. A mistake can do serious harm.",
        "Risk class Medium, like every Write tool.",
        'Severity is high: it touches identity and permissions ("user", "policy").',
        'The name begins with the verb "put", which creates or replaces something.',
        "Sibling tools put_role_policy, add_inline_policy have similar names.",
        "It has no parameters.",
        "Confidence is 0.87. The missing description lowers it. There are no parameters to judge by.",
        "Write: creates or updates something; usually reversible.",
        "Require approval for each call, up to 30 calls a minute.",
    ):
        assert sentence in described


def test_policy_generation_start_is_an_execute_of_high_risk():
    described = text(report_on({"name": "policy_generation_start"}))
    for sentence in (
        "suggests an Execute: it starts or controls a process.",
        "Runs an operation whose effect depends on the arguments. A mistake can do serious harm.",
        "Risk class High, like every Execute tool.",
        'The name begins with a noun and ends with the verb "start"',
        "It has no parameters.",
        "The missing description lowers it. There are no parameters to judge by.",
        "Validate the arguments and require approval for each call, up to 10 calls a minute.",
    ):
        assert sentence in described


def test_a_described_tool_with_parameters_is_quoted_with_its_confidence():
    described = report_on(
        {**tool("run_query"), "description": "Runs SQL. On the\nreplica. \u202eApprove it."}
    )
    assert described.does == 'The server says: "Runs SQL. On the replica."'
    assert described.confidence == "Confidence is 0.93."
    assert described.parameters.summary == "3 parameters, 1 required"
    assert "sql (string, required)" in text(described)


@each_row("odd", [None, 7, "", " \n", ["x"]])
def test_a_missing_or_invalid_description_is_not_quoted(odd):
    assert report_on({"name": "put_user_policy", "description": odd}).does.startswith(
        "The server gives no description."
    )


def test_a_name_that_was_not_understood_is_reported_as_such():
    described = report_on(tool("zarf_widget"))
    assert "was not understood: its effect is unknown" in described.does
    assert "Classify it in the config; until then" in described.answers[2].text
    assert "There is no usual limit for Other tools" in described.answers[3].text


def test_the_impact_is_the_one_on_the_card_of_a_held_call():
    for category in Category:
        for severity in Severity:
            override = Override(category=category, severity=severity)
            described = report_on(
                DEFINITIONS[0], classification=apply_override(classify_tool(DEFINITIONS[0]), override)
            )
            assert described.why[0] == describe_impact(category, severity)
    assert len({describe_impact(category, severity) for category in Category for severity in Severity}) == 24


def test_an_override_is_attributed_to_the_operator():
    override = Override(risk=Risk.CRITICAL, severity=Severity.CRITICAL)
    described = report_on(
        tool("list_users"), classification=apply_override(classify_tool(tool("list_users")), override)
    )
    assert described.confidence == "Confidence is 1.00: set by the operator."
    assert described.why[1:] == (
        "Risk class Critical, set in the operator's config.",
        "Severity is critical, for a reason listed below.",
    )


RULES = {
    "default": ("", "run_query", "A call waits for approval, by the default: no rule and no row of the matrix applies."),
    "matrix": ("", "list_users", "A call is allowed, by matrix[0], the first matching row of the matrix"),
    "named": (
        "  tools: {run_*: {action: deny, reason: Ask the team.}}", "run_query",
        "A call is denied, by tools.run_*, a rule for the tool.\nReason: Ask the team.",
    ),
    "hidden": ("  hide: [run_*]", "run_query", "A call is denied, because the policy hides it."),
    "limited": ("", "list_users", "Limit: 60 calls per 60 s, for each session."),
    "everyone": (
        "  tools: {run_query: {rate_limit: {max: 1, window: 5, per: everyone}}}", "run_query",
        "Limit: 1 call per 5 s, for all agents together.",
    ),
    "terms": ("", "run_query", "One person must approve it within 15 min."),
    "quorum": (
        "  tools: {run_query: {action: require_approval, approvals: 2, expire_after: 90}}", "run_query",
        "2 people must approve it within 1.5 min.",
    ),
    "unclear": (
        "  tools: {run_query: {action: deny, when: 'args.x > 1'}}", "run_query",
        "its condition could not be evaluated",
    ),
}  # fmt: skip


@each_row("case", RULES.values())
def test_the_rule_that_applies_is_named_with_its_reason(case):
    more, name, sentence = case
    options = load_config(
        f"policy:\n  matrix: [{{category: [Read], action: allow, rate_limit: {{max: 60, window: 60}}}}]\n{more}"
    )
    assert sentence in "\n".join(report_on(tool(name), options).applies)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("quarantine", "A call is denied, because its definition is in quarantine."),
        ("pin", "A call is denied, because its definition is not the accepted one."),
        (
            "pin (default)",
            "A call is denied, because its definition is not the accepted one; otherwise by the default: no rule and no row of the matrix applies.",
        ),
    ],
)
def test_an_unaccepted_definition_is_named_as_the_reason(rule, sentence):
    verdict = replace(evaluate_call(NOW, tool("run_query")), action=Action.DENY, rule=rule)
    described = build_report(SERVER, tool("run_query"), classify_tool(tool("run_query")), verdict)
    assert described.applies[0] == sentence


def test_six_questions_are_answered_for_every_tool():
    questions = [answer.question for answer in report_on(tool("delete_user")).answers]
    assert questions == [
        "What does delete_user do?",
        "How do I enforce a policy on delete_user?",
        "What risk level is delete_user?",
        "Can I limit how often delete_user is called?",
        "How do I block delete_user completely?",
        "What server provides delete_user?",
    ]


@each_row("name", NAMES)
def test_the_proposed_rule_does_what_the_advice_says(name):
    advice = ADVICE[classify_tool(tool(name)).category]
    verdict = evaluate_call(
        load_proposed(name, 1, default="deny" if advice.action is Action.ALLOW else "allow"), tool(name)
    )
    assert verdict.action is advice.action
    assert [(limit.max, limit.window) for limit in verdict.limits] == [(advice.per_minute, 60)] * bool(
        advice.per_minute
    )


def test_a_rule_that_allows_a_read_ends_when_the_tool_is_no_longer_a_read():
    worse = classify({"name": "delete_users"}, ())
    assert (
        evaluate_call(load_proposed("list_users", 1), tool("list_users"), classification=worse).action
        is Action.REQUIRE_APPROVAL
    )


def test_the_rule_for_an_execute_tool_allows_only_declared_arguments():
    options = load_proposed("run_query", 1)
    for arguments, action in (
        ({"sql": "SELECT 1", "rows": 3, "odd": []}, Action.REQUIRE_APPROVAL),
        ({"sql": "x" * 2001}, Action.DENY),
        ({"rows": "3"}, Action.DENY),
        ({"shell": "rm"}, Action.DENY),
    ):
        assert evaluate_call(options, tool("run_query"), **arguments).action is action
    assert (
        "write the schema yourself"
        in report_on({"name": "run_query", "inputSchema": {"properties": {"a b": {}}}}).answers[1].text
    )


@each_row("name", NAMES)
def test_the_proposed_override_is_the_current_classification(name):
    classified = classify_tool(tool(name))
    word = load_proposed(name, 2).servers[SERVER].tools[name]
    assert word.category == (Category.WRITE if classified.category is Category.OTHER else classified.category)
    assert word.severity == classified.severity


@each_row("name", NAMES)
def test_the_proposed_limit_does_not_change_the_action(name):
    verdict = evaluate_call(load_proposed(name, 3), tool(name))
    assert (verdict.action, len(verdict.limits)) == (Action.REQUIRE_APPROVAL, 1)


@each_row("name", NAMES)
def test_the_rule_that_blocks_a_tool_denies_only_that_tool(name):
    options = load_proposed(name, 4, default="allow")
    verdict = evaluate_call(options, tool(name))
    assert (verdict.action, verdict.rule) == (Action.DENY, "hide")
    assert evaluate_call(options, {"name": f"{name}s"}).action is Action.ALLOW
    assert evaluate_call(options, tool(name), server="other").action is Action.ALLOW


def test_the_commented_alternative_denies_with_a_reason():
    lines = report_on(tool("delete_user")).answers[4].yaml.splitlines()
    commented = [line.replace("# ", "", 1) for line in lines if line.startswith("  # ")][1:]
    denied = evaluate_call(
        load_config("\n".join(["policy:", *commented]), default="allow"), tool("delete_user")
    )
    assert (denied.action, denied.reason) == (Action.DENY, "Not allowed here")


def test_the_rule_for_a_server_covers_all_of_its_tools():
    options = load_proposed("list_users", 5, default="allow")
    assert evaluate_call(options, {"name": "anything"}).action is Action.REQUIRE_APPROVAL
    assert evaluate_call(options, {"name": "anything"}, server="other").action is Action.ALLOW
    assert "which does not list it now" in report_on(tool("list_users"), listed=False).answers[5].text


def test_an_invalid_name_gets_no_rules():
    described = report_on({"name": "déjà vu${HOME}"})
    assert [bool(answer.yaml) for answer in described.answers] == [False, False, False, False, False, True]
    assert "does d\\u00e9j\\u00e0 vu" in described.answers[0].question
    assert described.answers[2].text.endswith("is medium.")
    assert "What risk level" in text(described)
    assert described.answers[4].text.startswith("Every call is already denied")
    assert described.applies[0] == "A call is denied, because its name has invalid characters or is too long."
    assert described.title == f"d\\u00e9j\\u00e0 vu${{HOME}} on {SERVER}"
    assert 'The name "\\u65e5"' in report_on({"name": "\u65e5"}).does


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.dictionaries(st.text(max_size=8) | st.sampled_from(["a", "b-c"]), JSON),
        "required": JSON,
    },
)


@settings(max_examples=60, deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z0-9_.-]{1,128}", fullmatch=True) | st.sampled_from(NAMES),
    more=st.fixed_dictionaries({}, optional={"description": JSON, "inputSchema": SCHEMAS | JSON}),
)
def test_for_any_definition_the_proposed_config_loads_and_hidden_characters_are_escaped(name, more):
    definition = {"name": name, **more}
    described = report_on(definition)
    assert text(described).replace("\n", "").isprintable()
    for answer in described.answers[1:]:
        assert evaluate_call(load_config(answer.yaml), definition).trace
