"""Classifies a tool by its definition and the names of its siblings (PURE).

The name decides. Parameters may raise the result. The description and the annotations are the server's claims, so
they too may only raise it. A tool that is not understood is Other, never Read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from gateway.tools.classify import naming, parameters, severity
from gateway.tools.classify.lexicon import RANK, VERBS, Category, Verb, words
from gateway.tools.classify.parameters import Escalation
from gateway.tools.classify.reading import NameClassification, classify_name
from gateway.tools.classify.severity import Severity

__all__ = ["Category", "Risk", "Severity", "ToolClassification", "classify", "classify_unlisted"]


class Risk(StrEnum):
    """The risk class, fixed by the category."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    CRITICAL = "Critical"


#: The risk class of each category.
RISKS: Mapping[Category, Risk] = {
    Category.READ: Risk.LOW,
    Category.WRITE: Risk.MEDIUM,
    Category.OTHER: Risk.MEDIUM,
    Category.EXECUTE: Risk.HIGH,
    Category.DESTRUCTIVE: Risk.CRITICAL,
    Category.FINANCIAL: Risk.CRITICAL,
}


#: The evidence sentence of each category.
MEANINGS: Mapping[Category, str] = {
    Category.READ: "Read: retrieves data and changes nothing.",
    Category.WRITE: "Write: creates or updates something; usually reversible.",
    Category.OTHER: "Other: not understood, and never treated as a Read.",
    Category.EXECUTE: "Execute: triggers a process; its effect depends on the arguments and goes beyond the call.",
    Category.DESTRUCTIVE: "Destructive: removes or cancels something, possibly for good.",
    Category.FINANCIAL: "Financial: moves money or makes a financial commitment.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolClassification:
    """The classification of a tool: confidence from 0 to 1, evidence as sentences, the deciding one first."""

    category: Category
    risk: Risk
    severity: Severity
    confidence: float
    evidence: tuple[str, ...]


# Verbs that begin many descriptions and say little.
VAGUE = words("""
    perform execute run manage generate issue make set use load render track index test answer trigger start construct
    produce compose log submit call interact query design process plan register build post play request capture open
    apply store ask display format note
    """)
IRREVERSIBLE = re.compile(
    r"(?:cannot|can't|can not) be (?:undone|reversed|recovered)|irreversibl|permanently (?:delet|remov|destroy|eras)"
    r"|overwrit[^.]{0,60} without (?:warning|asking|confirm)"
)
WRITES_FILE = re.compile(
    r"\b(?:sav|writ|stor|download|export)(?:e|es|s|ing|)\b[^.]{0,60}\b(?:to|into|in|as)\s+(?:an?\s+|the\s+|your\s+)?"
    r"(?:local\s+)?(?:output\s+)?(?:disk|file(?:system)?|folder|directory|workspace directory)\b"
)
#: The most characters of a description that are read, and the most parameters named in the evidence.
MAX_DESCRIPTION = 2_000
MAX_NAMED = 4
_FIRST = re.compile(r"\W*([A-Za-z]+)")


def classify(tool: Mapping[str, Any], siblings: Iterable[str]) -> ToolClassification:
    """Classify one tool of a server's tools/list; *siblings* are the names of all its tools."""
    name, description = _as_text(tool.get("name")), _as_text(tool.get("description"))[:MAX_DESCRIPTION]
    family = naming.analyze_siblings(siblings)
    by_name = classify_name(name, family)
    parts = naming.split_words(name)
    params = parameters.declared_parameters(tool.get("inputSchema"))
    quoted = [
        word
        for word in parameters.find_quoted(description)
        if word not in family.names and word not in params
    ]
    raised = (
        *parameters.find_escalations(by_name, parts, tool.get("inputSchema"), quoted),
        *_description_escalations(by_name, description),
        *_annotation_escalations(by_name, tool.get("annotations")),
    )
    category = max((by_name.category, *(reason.category for reason in raised)), key=RANK.__getitem__)
    level, severity_evidence = severity.assess(category, parts, tuple(params))
    level = max((level, *(reason.severity for reason in raised)), key=severity.rank)
    support = family.find_similar(name, (by_name.word, parts[-1])) if parts else []
    details = (_siblings_evidence(support), _parameters_evidence(params), _description_evidence(description))
    return ToolClassification(
        category=category,
        risk=RISKS[category],
        severity=level,
        confidence=_confidence(
            by_name, category, supported=bool(support), described=bool(description.strip())
        ),
        evidence=tuple(
            filter(
                None,
                (
                    by_name.why,
                    *details,
                    *(reason.why for reason in raised),
                    MEANINGS[category],
                    severity_evidence,
                ),
            )
        ),
    )


def classify_unlisted(name: str, siblings: Iterable[str]) -> ToolClassification:
    """Classify a tool that the server does not list, by its name; the result is Other or stricter."""
    found = classify({"name": name}, siblings)
    if found.category is not Category.READ:
        return found
    level, severity_evidence = severity.assess(Category.OTHER, naming.split_words(name), ())
    why = "The server does not list this tool, and its name alone does not prove that it only reads."
    return replace(
        found,
        category=Category.OTHER,
        risk=RISKS[Category.OTHER],
        severity=max(found.severity, level, key=severity.rank),
        confidence=0.0,
        evidence=tuple(filter(None, (why, MEANINGS[Category.OTHER], severity_evidence))),
    )


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _confidence(
    by_name: NameClassification, category: Category, *, supported: bool, described: bool
) -> float:
    """Return the confidence: similar siblings raise it, an empty description or an escalation lowers it."""
    if category is not by_name.category:
        return 0.6
    return round(min(0.99, max(0.05, by_name.confidence + 0.04 * supported - 0.1 * (not described))), 2)


def _siblings_evidence(names: list[str]) -> str:
    if len(names) == 1:
        return f"Sibling tool {names[0]} has a similar name."
    return f"Sibling tools {', '.join(names)} have similar names." if names else ""


def _parameters_evidence(params: Mapping[str, object]) -> str:
    shown = [name for name in params if naming.PLAIN.match(name)][:MAX_NAMED]
    if not params:
        return "It has no parameters."
    count = "1 parameter" if len(params) == 1 else f"{len(params)} parameters"
    return f"It takes {count}: {', '.join(shown)}." if shown else f"It takes {count}."


def _description_evidence(text: str) -> str:
    return "" if text.strip() else "The description is empty, which lowers the confidence."


def _description_escalations(by_name: NameClassification, description: str) -> Iterator[Escalation]:
    """Yield the escalations of the description: a stricter first verb, an irreversible effect, a written file."""
    text = description.lower()
    if not text or RANK[by_name.category] > RANK[Category.WRITE]:
        return
    first = _FIRST.match(text)
    verb = _verb_of(first.group(1)) if first else None
    if verb and _is_stricter(verb, by_name):
        yield Escalation(
            category=verb.category, why=f'The description begins with "{verb.word}", which {verb.meaning}.'
        )
    if IRREVERSIBLE.search(text):
        why = "The description says that the effect cannot be undone."
        yield Escalation(category=Category.WRITE, severity=Severity.HIGH, why=why)
    if by_name.category is Category.READ and WRITES_FILE.search(text):
        yield Escalation(category=Category.WRITE, why="The description says that it writes a file.")


def _is_stricter(verb: Verb, by_name: NameClassification) -> bool:
    """Return whether the description's first verb is stricter than the name."""
    if verb.category is Category.READ:
        return False
    if by_name.category is Category.READ and verb.word == "manage":
        return by_name.word not in VERBS  # "manage" fits a bare noun; it does not fit `list_x`
    return by_name.category is Category.OTHER or (
        by_name.category is Category.READ and verb.firm and verb.word not in VAGUE
    )


def _verb_of(word: str) -> Verb | None:
    """Find the verb of `creates`, `applies` or `create`."""
    forms = (word, word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("ies") + "y")
    return next((VERBS[form] for form in forms if form in VERBS), None)


def _annotation_escalations(by_name: NameClassification, annotations: object) -> Iterator[Escalation]:
    """Yield the escalations of the annotations, which are the server's claim and never lower the category."""
    if not isinstance(annotations, Mapping):
        return
    if annotations.get("readOnlyHint") is False:
        yield Escalation(category=Category.WRITE, why="The server marks it readOnlyHint: false.")
    if annotations.get("destructiveHint") is True:
        yield Escalation(category=Category.WRITE, why="The server marks it destructiveHint: true.")
    if annotations.get("readOnlyHint") is True and by_name.category is not Category.READ:
        yield Escalation(
            category=Category.READ,
            why="The server marks it readOnlyHint: true, which does not lower the category.",
        )
