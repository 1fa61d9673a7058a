"""PURE. What Okayed says of one tool, wherever it says it: on its page, in the terminal, in a policy to start from.

The server's own words are quoted as such and made safe; everything else follows from the classification and the
policy's verdict.
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
from gateway.explain.parameters import ParameterList, read_parameters
from gateway.explain.questions import PASTE_HINT, QuestionAnswer
from gateway.policy.evaluation import Action, Verdict
from gateway.policy.limits import LimitScope
from gateway.tools.classify import naming
from gateway.tools.classify.risk import Category, ToolClassification

#: How much of a server's description is quoted: sentences, and characters.
MAX_SENTENCES = 2
MAX_QUOTED = 400
_END = re.compile(r"(?<=[.!?])\s+(?=\S)")

_DOES: Mapping[Category, str] = {
    Category.READ: "it retrieves something and changes nothing",
    Category.WRITE: "it creates or changes something",
    Category.EXECUTE: "it sets something going",
    Category.DESTRUCTIVE: "it removes or cancels something",
    Category.FINANCIAL: "it moves money or commits to an obligation",
    Category.OTHER: "what it does is not known",
}
_HAPPENS: Mapping[Action, str] = {
    Action.ALLOW: "goes through",
    Action.REQUIRE_APPROVAL: "waits for a person",
    Action.DENY: "is denied",
}
_BY: Mapping[str, str] = {
    "default": "by the default: no rule decides it and no row of the matrix fits",
    "hide": "because the policy hides it",
    "quarantine": "because its definition is not one that can be trusted",
    "pin": "because its definition is not the one that was accepted",
    "name": "because its name has characters that no tool may have, or is too long",
}


_PER: Mapping[LimitScope, str] = {
    LimitScope.SESSION: "for each session",
    LimitScope.AGENT: "for each agent",
    LimitScope.EVERYONE: "for everyone together",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReport:
    """All that is said of one tool; every text is safe to show."""

    title: str
    does: str
    #: Why it needs a policy: what could go wrong, what class that is, how far it reaches.
    why: tuple[str, ...]
    evidence: tuple[str, ...]
    #: How sure the classification is, and what it rests on.
    confidence: str
    parameters: ParameterList
    #: What happens to a call now, by which rule, and on which terms.
    applies: tuple[str, ...]
    advice: str
    answers: tuple[QuestionAnswer, ...]


def build_report(
    server: str,
    definition: Mapping[str, Any],
    found: ToolClassification,
    verdict: Verdict,
    *,
    listed: bool = True,
) -> ToolReport:
    """Say all there is to say of a tool, and of a call of it that was judged as *verdict*."""
    name = str(definition["name"])
    parameters = read_parameters(definition)
    does = _describe_tool(name, definition.get("description"), found.category)
    return ToolReport(
        title=f"{safetext.ascii_name(name)} on {server}",
        does=does,
        why=(
            describe_impact(found.category, found.severity),
            questions.describe_risk(found),
            _describe_severity(found),
        ),
        evidence=tuple(map(safetext.escape_hidden, found.evidence)),
        confidence=_describe_confidence(found, definition, parameters),
        parameters=parameters,
        applies=tuple(_describe_verdict(verdict)),
        advice=ADVICE[found.category].text,
        answers=tuple(questions.answer_questions(server, name, found, parameters, does, listed=listed)),
    )


def first_sentences(text: object) -> str:
    """Return the first sentences of a description on one safe line, or ""."""
    if not isinstance(text, str):
        return ""
    sentences = _END.split(text[: 4 * MAX_QUOTED].strip())
    return safetext.one_line(" ".join(sentences[:MAX_SENTENCES]), MAX_QUOTED)


def _describe_tool(name: str, description: object, category: Category) -> str:
    if said := first_sentences(description):
        return f'Its server says: "{said}"'
    words = " ".join(naming.split_words(name)) or safetext.ascii_name(name)
    taken = (
        "it was not understood"
        if category is Category.OTHER
        else f"it is taken for {questions.with_article(category)}"
    )
    return f'Its server does not describe it. Its name reads "{words}", and {taken}: {_DOES[category]}.'


# Why it needs a policy


def _describe_severity(found: ToolClassification) -> str:
    """Repeat the classifier's sentence on severity, unless something else had the last word."""
    start = f"Severity is {found.severity}"
    said = next((line for line in found.evidence if line.startswith(f"{start}:")), None)
    return safetext.escape_hidden(said or f"{start}: a reason below set it.")


def _describe_confidence(
    found: ToolClassification, definition: Mapping[str, Any], parameters: ParameterList
) -> str:
    level = f"Confidence is {found.confidence:.2f}"
    if found.confidence == 1:
        return f"{level}: the operator said what it is."
    reasons = [
        *(
            []
            if first_sentences(definition.get("description"))
            else ["It is lower because there is no description."]
        ),
        *([] if parameters.total else ["There are no parameters to go by."]),
    ]
    return " ".join([f"{level}.", *reasons])


# The rule that applies


def _describe_verdict(verdict: Verdict) -> Iterator[str]:
    yield f"A call {_HAPPENS[verdict.action]}, {_describe_rule(verdict.rule)}."
    if verdict.reason:
        yield f"Its reason: {safetext.one_line(verdict.reason, 400).rstrip('.')}."
    yield from (f"{match.rule}: {match.note}." for match in verdict.trace if match.note)
    if verdict.action is Action.REQUIRE_APPROVAL:
        yield _describe_approval(verdict.terms)
    yield from (f"Limit: {limit.text}, {_PER[limit.per]}." for limit in verdict.limits)


def _describe_rule(rule: str) -> str:
    if rule.startswith("matrix["):
        return f"by {rule}, the first row of the matrix that fits it; no rule that names it decides"
    if rule.startswith("pin ("):
        return f"{_BY['pin']}; otherwise {_describe_rule(rule[5:-1])}"
    return _BY.get(rule, f"by {rule}, which names it")


def _describe_approval(terms: Terms) -> str:
    who = "One person" if terms.needed == 1 else f"{terms.needed} people"
    return f"{who} must approve it within {terms.expire_after / 60:g} min."


def format_report(report: ToolReport) -> Sequence[str]:
    """Return what is told as lines of text, the questions last."""
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
        *(
            f"  {one.name} ({one.type}{', required' if one.required else ''}){f': {one.line}' if one.line else ''}"
            for one in report.parameters.shown
        ),
        *(line for answer in report.answers[1:] for line in _format_answer(answer)),
        "",
        PASTE_HINT,
    ]


def _format_answer(answer: QuestionAnswer) -> Iterator[str]:
    yield from ("", answer.question, f"  {answer.text}")
    if answer.yaml:
        yield ""
        yield from (f"      {line}" for line in answer.yaml.splitlines())
