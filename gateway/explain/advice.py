"""PURE. What the catalogue advises for each category, and the rules that can be pasted, as lines of YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.explain.parameters import ParameterList, propose_schema
from gateway.policy.evaluation import Action
from gateway.tools.classify.risk import Category, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do with the tools of a category: the action, the calls a minute, whether to check the arguments."""

    action: Action
    text: str
    per_minute: int | None = None
    validate: bool = False


ADVICE: Mapping[Category, Advice] = {
    Category.READ: Advice(action=Action.ALLOW, per_minute=60, text="Allow it, at most 60 calls a minute."),
    Category.WRITE: Advice(
        action=Action.REQUIRE_APPROVAL,
        per_minute=30,
        text="Let a person approve each call, at most 30 calls a minute.",
    ),
    Category.EXECUTE: Advice(
        action=Action.REQUIRE_APPROVAL,
        per_minute=10,
        validate=True,
        text="Check the arguments and let a person approve each call, at most 10 calls a minute.",
    ),
    Category.FINANCIAL: Advice(action=Action.REQUIRE_APPROVAL, text="Let a person approve each call."),
    Category.DESTRUCTIVE: Advice(
        action=Action.DENY,
        text="Deny it; where it is needed, let a person approve each call by a rule that names the tool.",
    ),
    Category.OTHER: Advice(
        action=Action.REQUIRE_APPROVAL,
        text="Let a person approve each call, and say in the config what it is.",
    ),
}
#: The calls a minute that a limit is shown with where the catalogue advises none.
DEFAULT_PER_MINUTE = 10


def format_limit(per_minute: int) -> str:
    """Return a limit as YAML."""
    return f"{{max: {per_minute}, window: 60}}"


def rule_terms(advice: Advice) -> Sequence[str]:
    """Return the action and the limit of an advice, as lines of a rule."""
    counted = [f"rate_limit: {format_limit(advice.per_minute)}"] if advice.per_minute else []
    return [f"action: {advice.action}", *counted]


def build_rule(server: str, tool: str, category: Category, parameters: ParameterList) -> Sequence[str]:
    """Return the rule that follows the advice for one tool, as lines of what stands under `policy.tools`.

    One that allows ends by itself: should the server change the tool into more than a Read, the matrix counts again.
    """
    advice = ADVICE[category]
    checked = propose_schema(parameters) if advice.validate else ()
    lines = [
        *([f"when: risk.category == '{category}'"] if advice.action is Action.ALLOW else []),
        *rule_terms(advice),
        *(["arguments:", *indent(checked)] if checked else []),
    ]
    return [f"{policy_key(server, tool)}:", *indent(lines)]


def build_limit_rule(server: str, tool: str, category: Category) -> str:
    """Return a rule that only limits how often a tool is called."""
    return nest(
        "policy",
        "tools",
        [
            f"{policy_key(server, tool)}: {{rate_limit: {format_limit(ADVICE[category].per_minute or DEFAULT_PER_MINUTE)}}}"
        ],
    )


def build_hide(server: str, tool: str) -> str:
    """Return what hides a tool and denies every call of it; in a comment, what only denies."""
    return nest(
        "policy",
        [
            f"hide: [{policy_key(server, tool)}]",
            "# Or let agents see it, and deny each call with a reason that they read:",
            "# tools:",
            f"#   {policy_key(server, tool)}: {{action: deny, reason: Not from here}}",
        ],
    )


def build_override(server: str, tool: str, category: Category, severity: Severity) -> str:
    """Return the operator's word about a tool; what was not understood is shown as the Write it counts as."""
    known = Category.WRITE if category is Category.OTHER else category
    word = f"{json.dumps(tool)}: {{category: {known}, severity: {severity}}}"
    return nest("servers", json.dumps(server), "tools", [word])


def build_server_rule(server: str) -> str:
    """Return a rule for all tools of a server."""
    return nest("policy", "tools", [f"{policy_key(server, '*')}: {{action: require_approval}}"])


def policy_key(server: str, tool: str) -> str:
    """Return the name of a tool as a key of the policy."""
    return json.dumps(f"{server}/{tool}")


def nest(*place: str | Iterable[str]) -> str:
    """Return lines (the last argument) below the keys that lead to them."""
    *keys, lines = place
    written = list(lines)
    for name in reversed(keys):
        written = [f"{name}:", *indent(written)]
    return "\n".join(written)


def indent(lines: Iterable[str]) -> list[str]:
    """Return lines one level deeper."""
    return [f"  {line}" for line in lines]
