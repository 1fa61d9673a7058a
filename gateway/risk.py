"""PURE. A tool's definition and its siblings' names become a category, a risk class, a severity, and the evidence.

The ladder: the name decides, its verb first; parameters may raise that; the description and the annotations,
which cost a server nothing to write, may only raise it further. What is not understood is Other, never Read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway import naming
from gateway.lexicon import MANY, VERBS, Category, Verb

__all__ = ["Category", "Classification", "Risk", "Severity", "classify"]


class Risk(StrEnum):
    """The risk class, which follows from the category."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    CRITICAL = "Critical"


class Severity(StrEnum):
    """How much one call can harm, by what it touches and how far it reaches."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


RISKS: Mapping[Category, Risk] = {
    Category.READ: Risk.LOW,
    Category.WRITE: Risk.MEDIUM,
    Category.OTHER: Risk.MEDIUM,
    Category.EXECUTE: Risk.HIGH,
    Category.DESTRUCTIVE: Risk.CRITICAL,
    Category.FINANCIAL: Risk.CRITICAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What the gateway takes a tool to be; confidence is 0 to 1, evidence is full sentences, the deciding one first."""

    category: Category
    risk: Risk
    severity: Severity
    confidence: float
    evidence: tuple[str, ...]


def classify(tool: Mapping[str, Any], siblings: Iterable[str]) -> Classification:
    """Classify one entry of a server's tools/list; `siblings` are the names of all its tools."""
    name = tool.get("name")
    kin = naming.family(tuple(name for name in siblings if isinstance(name, str)))
    reading = naming.read(name if isinstance(name, str) else "", kin)
    return Classification(
        category=reading.category,
        risk=RISKS[reading.category],
        severity=Severity.MEDIUM,
        confidence=reading.confidence,
        evidence=(reading.why,),
    )
