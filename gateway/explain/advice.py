"""Advice for each category, and rules to paste as lines of YAML (PURE)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.explain.parameters import ParameterList, propose_schema
from gateway.policy.evaluation import Action
from gateway.tools.classify.risk import Category, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The advice for a category: action, calls per minute, whether to validate the arguments."""

    action: Action
    text: str
    per_minute: int | None = None
    validate: bool = False


ADVICE: Mapping[Category, Advice] = {
    Category.READ: Advice(action=Action.ALLOW, per_minute=60, text="Allow it, up to 60 calls a minute."),
    Category.WRITE: Advice(
        action=Action.REQUIRE_APPROVAL,
        per_minute=30,
        text="Require approval for each call, up to 30 calls a minute.",
    ),
    Category.EXECUTE: Advice(
        action=Action.REQUIRE_APPROVAL,
        per_minute=10,
        validate=True,
        text="Validate the arguments and require approval for each call, up to 10 calls a minute.",
    ),
    Category.FINANCIAL: Advice(action=Action.REQUIRE_APPROVAL, text="Require approval for each call."),
    Category.DESTRUCTIVE: Advice(
        action=Action.DENY,
        text="Deny it; if you need it, require approval for each call with a rule for the tool.",
    ),
    Category.OTHER: Advice(
        action=Action.REQUIRE_APPROVAL,
        text="Require approval for each call, and classify the tool in the config.",
    ),
}
#: The limit per minute for categories whose advice has none.
DEFAULT_PER_MINUTE = 10


def format_limit(per_minute: int) -> str:
    """Format a limit per minute as YAML."""
    return f"{{max: {per_minute}, window: 60}}"


def rule_terms(advice: Advice) -> Sequence[str]:
    """Return the advised action and rate limit as lines of a rule."""
    limit = [f"rate_limit: {format_limit(advice.per_minute)}"] if advice.per_minute else []
    return [f"action: {advice.action}", *limit]


def build_rule(server: str, tool: str, category: Category, parameters: ParameterList) -> Sequence[str]:
    """Build the advised rule for one tool, as lines under `policy.tools`.

    A rule that allows has a condition, so that the matrix applies again if the tool's category changes.
    """
    advice = ADVICE[category]
    schema = propose_schema(parameters) if advice.validate else ()
    lines = [
        *([f"when: risk.category == '{category}'"] if advice.action is Action.ALLOW else []),
        *rule_terms(advice),
        *(["arguments:", *indent(schema)] if schema else []),
    ]
    return [f"{policy_key(server, tool)}:", *indent(lines)]


def build_limit_rule(server: str, tool: str, category: Category) -> str:
    """Build a rule that only limits the rate of calls."""
    limit = format_limit(ADVICE[category].per_minute or DEFAULT_PER_MINUTE)
    return nest("policy", "tools", [f"{policy_key(server, tool)}: {{rate_limit: {limit}}}"])


def build_hide(server: str, tool: str) -> str:
    """Build the config that hides a tool; a comment shows a rule that denies it instead."""
    return nest(
        "policy",
        [
            f"hide: [{policy_key(server, tool)}]",
            "# Or keep it visible and deny each call, with a reason for the agent:",
            "# tools:",
            f"#   {policy_key(server, tool)}: {{action: deny, reason: Not allowed here}}",
        ],
    )


def build_override(server: str, tool: str, category: Category, severity: Severity) -> str:
    """Build the operator's override for a tool; Other becomes Write, because it is treated like one."""
    known = Category.WRITE if category is Category.OTHER else category
    override = f"{json.dumps(tool)}: {{category: {known}, severity: {severity}}}"
    return nest("servers", json.dumps(server), "tools", [override])


def build_server_rule(server: str) -> str:
    """Build a rule for all tools of a server."""
    return nest("policy", "tools", [f"{policy_key(server, '*')}: {{action: require_approval}}"])


def policy_key(server: str, tool: str) -> str:
    """Return the policy key of a tool, quoted for YAML."""
    return json.dumps(f"{server}/{tool}")


def nest(*keys_and_lines: str | Iterable[str]) -> str:
    """Nest lines under keys: `nest("policy", "tools", lines)`."""
    *keys, lines = keys_and_lines
    nested = list(lines)
    for name in reversed(keys):
        nested = [f"{name}:", *indent(nested)]
    return "\n".join(nested)


def indent(lines: Iterable[str]) -> list[str]:
    """Indent lines by one level."""
    return [f"  {line}" for line in lines]
