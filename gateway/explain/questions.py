"""Answers six questions about a tool, with YAML to paste (PURE)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from approvals import safetext
from gateway.explain import advice
from gateway.explain.advice import ADVICE
from gateway.explain.parameters import ParameterList, propose_schema
from gateway.tools.classify.risk import MEANINGS, RISKS, Category, ToolClassification
from gateway.wire.frames import TOOL_NAME

#: How to use the YAML of an answer.
PASTE_HINT = "Merge this into the same keys of your config, then run: okayed check"
#: The effect of every limit.
OVER_LIMIT = (
    "A call over the limit is denied with the time to retry;"
    " with on_exceed: require_approval it waits for approval."
)
#: The answer for a tool with an invalid name, which no rule can match.
ALREADY_DENIED = "Every call is already denied, because its name is invalid."


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionAnswer:
    """A question about a tool, its answer, and YAML to paste or ""."""

    question: str
    text: str
    yaml: str = ""


def answer_questions(
    server: str,
    name: str,
    classification: ToolClassification,
    parameters: ParameterList,
    does: str,
    *,
    listed: bool,
) -> Iterator[QuestionAnswer]:
    """Answer the questions about a tool; *does* is the description of its effect."""
    tool, category = safetext.ascii_name(name), classification.category
    yield QuestionAnswer(question=f"What does {tool} do?", text=f"{does} {MEANINGS[category]}")
    yield _answer_with_rule(
        name,
        f"How do I enforce a policy on {tool}?",
        f"Add a rule for it. {ADVICE[category].text}{_arguments_note(category, parameters)}",
        advice.nest("policy", "tools", advice.build_rule(server, name, category, parameters)),
    )
    risk = f"{describe_risk(classification)} Severity, the harm that one call can do, is {classification.severity}."
    yield _answer_with_rule(
        name,
        f"What risk level is {tool}?",
        f"{risk} {_override_note(category)}",
        advice.build_override(server, name, category, classification.severity),
        otherwise=risk,
    )
    yield _answer_with_rule(
        name,
        f"Can I limit how often {tool} is called?",
        f"Yes. {_usual_limit(category)} {OVER_LIMIT}",
        advice.build_limit_rule(server, name, category),
    )
    yield _answer_with_rule(
        name,
        f"How do I block {tool} completely?",
        "Hide it: agents no longer see it, and every call is denied.",
        advice.build_hide(server, name),
    )
    yield QuestionAnswer(
        question=f"What server provides {tool}?",
        text=f"{_describe_server(server, listed=listed)} A rule for all its tools:",
        yaml=advice.build_server_rule(server),
    )


def _answer_with_rule(
    name: str, question: str, text: str, yaml: str, otherwise: str = ALREADY_DENIED
) -> QuestionAnswer:
    """Answer with YAML for the tool, or with *otherwise* if no rule can match its name."""
    if not TOOL_NAME.fullmatch(name):
        return QuestionAnswer(question=question, text=otherwise)
    return QuestionAnswer(question=question, text=text, yaml=yaml)


def describe_risk(classification: ToolClassification) -> str:
    """Return a sentence with the risk class and its origin."""
    if classification.risk is not RISKS[classification.category]:
        return f"Risk class {classification.risk}, set in the operator's config."
    return f"Risk class {classification.risk}, like every {classification.category} tool."


def _arguments_note(category: Category, parameters: ParameterList) -> str:
    if category is not Category.EXECUTE:
        return ""
    if not propose_schema(parameters):
        return " Its parameters are too many or too unusual to list here, so write the schema yourself."
    return " The schema below allows the declared parameters only; tighten it to what your agents need."


def _override_note(category: Category) -> str:
    if category is Category.OTHER:
        return "Classify it in the config; until then it is treated as a tool that changes something:"
    return "If it is wrong, override it; the config takes precedence over the classifier:"


def _usual_limit(category: Category) -> str:
    usual = ADVICE[category].per_minute
    if usual is None:
        return f"There is no usual limit for {category} tools; this one is low."
    return f"The usual limit for {category} tools is {usual} calls a minute."


def _describe_server(server: str, *, listed: bool) -> str:
    return f"The server {server} of your config{'' if listed else ', which does not list it now'}."


def with_article(category: Category) -> str:
    """Return a category with its indefinite article."""
    return f"{'an' if category[0] in 'EO' else 'a'} {category}"
