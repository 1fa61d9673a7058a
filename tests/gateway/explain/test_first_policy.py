"""The generated first policy loads, and follows the advice for each tool's category."""

import pytest

from gateway.app import config
from gateway.explain.advice import ADVICE
from gateway.explain.first_policy import UNKNOWN, generate_policy
from gateway.policy.evaluation import Action
from gateway.tools.classify.risk import Category
from rows import each_row
from sample_tools import DEFINITIONS, SERVER, classify_tool, evaluate_call, tool

TOOLS = [(SERVER, tool(definition)) for definition in DEFINITIONS]
PRINTED = generate_policy(TOOLS, {"slow": "It did not\nanswer in time."})


def parsed(text):
    return config.parse_config(f"servers: {{{SERVER}: {{command: [x]}}}}\n{text}", {}, str)


def test_the_sample_has_a_tool_of_each_category():
    assert {classify_tool(definition).category for definition in DEFINITIONS} == set(Category)


@each_row("definition", DEFINITIONS)
def test_every_tool_gets_the_verdict_of_the_advice_for_its_category(definition):
    advice = ADVICE[classify_tool(definition).category]
    verdict = evaluate_call(parsed(PRINTED), definition)
    assert (verdict.action, verdict.rule) == (advice.action, f"tools.{SERVER}/{definition['name']}")
    assert [limit.max for limit in verdict.limits] == [advice.per_minute] * bool(advice.per_minute)


@each_row("definition", DEFINITIONS)
def test_a_tool_added_later_is_judged_by_its_category(definition):
    verdict = evaluate_call(parsed(PRINTED), definition, server="later")
    assert verdict.action is ADVICE[classify_tool(definition).category].action
    assert verdict.rule.startswith("matrix[")


def test_an_execute_tool_accepts_only_declared_arguments():
    assert evaluate_call(parsed(PRINTED), DEFINITIONS[2], shell="rm").action is Action.DENY


def test_tools_are_grouped_by_category_and_unknown_ones_are_marked():
    places = [PRINTED.index(f"    # {category}: ") for category in ADVICE if category is not Category.OTHER]
    assert places == sorted(places)
    assert PRINTED.index(UNKNOWN) < PRINTED.index('"awslabs.iam-mcp-server/zarf_widget"')
    assert "# Advice: Require approval for each call, up to 30 calls a minute." in PRINTED
    assert '# put_user_policy: risk Medium, severity high. The name begins with the verb "put"' in PRINTED


def test_a_server_that_could_not_be_listed_is_named():
    assert "  # slow could not be listed: It did not answer in time.\n" in PRINTED


@pytest.mark.parametrize("offers", [[], [(SERVER, tool({"name": "a b\nevil: 1"}))]], ids=str)
def test_without_any_valid_tool_name_the_policy_still_loads(offers):
    assert parsed(generate_policy(offers, {})).policy.tools == {}


def test_a_tool_name_cannot_escape_its_comment():
    printed = generate_policy([(SERVER, tool({"name": "x\u2028policy: 1\n  hide: ['*']"}))], {})
    assert "# x\\u2028policy: 1\\n hide" in printed
    assert parsed(printed).policy.hide == []
