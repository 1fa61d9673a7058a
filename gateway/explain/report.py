"""Builds the report on one tool for its page and for the terminal (PURE).

The server's description is quoted and made safe to show. The rest follows from the classification and the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from approvals import safetext
from approvals.impact import describe_impact
from approvals.model import Terms
from gateway.explain import questions
from gateway.explain.advice import ADVICE
from gateway.explain.parameters import Parameter, ParameterList, build_parameter_list
from gateway.explain.questions import PASTE_HINT, QuestionAnswer
from gateway.policy.evaluation import Action, Verdict
from gateway.policy.limits import LimitScope
from gateway.tools.classify import naming
from gateway.tools.classify.risk import Category, ToolClassification

#: The most sentences and characters quoted from a server's description.
MAX_SENTENCES = 2
MAX_QUOTED = 400
_END = re.compile(r"(?<=[.!?])\s+(?=\S)")

_EFFECTS: Mapping[Category, str] = {
    Category.READ: "it retrieves data and changes nothing",
    Category.WRITE: "it creates or changes something",
    Category.EXECUTE: "it starts or controls a process",
    Category.DESTRUCTIVE: "it removes or cancels something",
    Category.FINANCIAL: "it moves money or makes a financial commitment",
    Category.OTHER: "its effect is unknown",
}
_ACTION_PHRASES: Mapping[Action, str] = {
    Action.ALLOW: "is allowed",
    Action.REQUIRE_APPROVAL: "waits for approval",
    Action.DENY: "is denied",
}
_RULE_PHRASES: Mapping[str, str] = {
    "default": "by the default: no rule and no row of the matrix applies",
    "hide": "because the policy hides it",
    "quarantine": "because its definition is in quarantine",
    "pin": "because its definition is not the accepted one",
    "name": "because its name has invalid characters or is too long",
}


_SCOPE_PHRASES: Mapping[LimitScope, str] = {
    LimitScope.SESSION: "for each session",
    LimitScope.AGENT: "for each agent",
    LimitScope.EVERYONE: "for all agents together",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReport:
    """The report on one tool, in sentences; every text is safe to show."""

    title: str
    does: str
    #: Why it needs a policy: impact, risk class, severity.
    why: tuple[str, ...]
    evidence: tuple[str, ...]
    #: The confidence of the classification, and the reasons that lower it.
    confidence: str
    parameters: ParameterList
    #: The verdict on a call now: action, rule, terms, limits.
    applies: tuple[str, ...]
    advice: str
    answers: tuple[QuestionAnswer, ...]


def build_report(
    server: str,
    definition: Mapping[str, Any],
    classification: ToolClassification,
    verdict: Verdict,
    *,
    listed: bool = True,
) -> ToolReport:
    """Build the report on a tool; *verdict* is the policy's verdict on a call of the tool."""
    name = str(definition["name"])
    parameters = build_parameter_list(definition)
    does = _describe_tool(name, definition.get("description"), classification.category)
    return ToolReport(
        title=f"{safetext.ascii_name(name)} on {server}",
        does=does,
        why=(
            describe_impact(classification.category, classification.severity),
            questions.describe_risk(classification),
            _describe_severity(classification),
        ),
        evidence=tuple(map(safetext.escape_hidden, classification.evidence)),
        confidence=_describe_confidence(classification, definition, parameters),
        parameters=parameters,
        applies=tuple(_describe_verdict(verdict)),
        advice=ADVICE[classification.category].text,
        answers=tuple(
            questions.answer_questions(server, name, classification, parameters, does, listed=listed)
        ),
    )


def first_sentences(text: object) -> str:
    """Return the first sentences of a description as one safe line, or ""."""
    if not isinstance(text, str):
        return ""
    sentences = _END.split(text[: 4 * MAX_QUOTED].strip())
    return safetext.one_line(" ".join(sentences[:MAX_SENTENCES]), MAX_QUOTED)


def _describe_tool(name: str, description: object, category: Category) -> str:
    if quoted := first_sentences(description):
        return f'The server says: "{quoted}"'
    words = " ".join(naming.split_words(name)) or safetext.ascii_name(name)
    other = category is Category.OTHER
    meaning = "was not understood" if other else f"suggests {questions.with_article(category)}"
    return f'The server gives no description. The name "{words}" {meaning}: {_EFFECTS[category]}.'


# Why it needs a policy


def _describe_severity(classification: ToolClassification) -> str:
    """Return the classifier's sentence on the severity, unless an escalation raised it."""
    start = f"Severity is {classification.severity}"
    sentence = next((line for line in classification.evidence if line.startswith(f"{start}:")), None)
    return safetext.escape_hidden(sentence or f"{start}, for a reason listed below.")


def _describe_confidence(
    classification: ToolClassification, definition: Mapping[str, Any], parameters: ParameterList
) -> str:
    level = f"Confidence is {classification.confidence:.2f}"
    if classification.confidence == 1:
        return f"{level}: set by the operator."
    reasons = [
        *([] if first_sentences(definition.get("description")) else ["The missing description lowers it."]),
        *([] if parameters.total else ["There are no parameters to judge by."]),
    ]
    return " ".join([f"{level}.", *reasons])


# The rule that applies


def _describe_verdict(verdict: Verdict) -> Iterator[str]:
    yield f"A call {_ACTION_PHRASES[verdict.action]}, {_describe_rule(verdict.rule)}."
    if verdict.reason:
        yield f"Reason: {safetext.one_line(verdict.reason, 400).rstrip('.')}."
    yield from (f"{match.rule}: {match.note}." for match in verdict.trace if match.note)
    if verdict.action is Action.REQUIRE_APPROVAL:
        yield _describe_approval(verdict.terms)
    yield from (f"Limit: {limit.text}, {_SCOPE_PHRASES[limit.per]}." for limit in verdict.limits)


def _describe_rule(rule: str) -> str:
    if rule.startswith("matrix["):
        return f"by {rule}, the first matching row of the matrix; no rule for the tool decides"
    if rule.startswith("pin ("):
        return f"{_RULE_PHRASES['pin']}; otherwise {_describe_rule(rule[5:-1])}"
    return _RULE_PHRASES.get(rule, f"by {rule}, a rule for the tool")


def _describe_approval(terms: Terms) -> str:
    who = "One person" if terms.needed == 1 else f"{terms.needed} people"
    return f"{who} must approve it within {terms.expire_after / 60:g} min."


def format_report(report: ToolReport) -> Sequence[str]:
    """Format the report as lines of text, the questions last."""
    return [
        "What it does:",
        f"  {report.does}",
        "",
        "Why it needs a policy:",
        *(f"  {line}" for line in report.why),
        f"  Advice: {report.advice}",
        "",
        f"From its definition. {report.confidence}",
        *(f"  {line}" for line in report.evidence),
        f"{report.parameters.summary}{':' if report.parameters.shown else '.'}",
        *(f"  {_format_parameter(parameter)}" for parameter in report.parameters.shown),
        *(line for answer in report.answers[1:] for line in _format_answer(answer)),
        "",
        PASTE_HINT,
    ]


def _format_parameter(parameter: Parameter) -> str:
    required = ", required" if parameter.required else ""
    line = f": {parameter.line}" if parameter.line else ""
    return f"{parameter.name} ({parameter.type}{required}){line}"


def _format_answer(answer: QuestionAnswer) -> Iterator[str]:
    yield from ("", answer.question, f"  {answer.text}")
    if answer.yaml:
        yield ""
        yield from (f"      {line}" for line in answer.yaml.splitlines())
