"""PURE. The six questions that a reader has about a tool, answered for it, with config that can be pasted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from approvals import safetext
from gateway.explain import advice
from gateway.explain.advice import ADVICE
from gateway.explain.parameters import Declared, checks
from gateway.tools.classify.risk import MEANINGS, RISKS, Category, ToolClassification
from gateway.wire.frames import TOOL_NAME

#: What to do with the config that is shown.
PASTE = "Config that is shown goes below the same keys of your own; look over it with: okayed check"
OVER = "A call over the limit is denied and told when to try again; with on_exceed: require_approval it waits for a person."
#: The answer where no rule could name the tool.
DENIED = "Every call of it is denied already: its name is not one that a tool may have."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question that a reader has about a tool, its answer, and config to paste or ""."""

    question: str
    text: str
    yaml: str = ""


def answers(
    server: str, name: str, found: ToolClassification, parameters: Declared, does: str, *, listed: bool
) -> Iterator[Answer]:
    """Answer the questions; *does* says what the tool does."""
    tool, category = safetext.ascii_name(name), found.category
    yield Answer(question=f"What does {tool} do?", text=f"{does} {MEANINGS[category]}")
    yield _ruled(
        name,
        f"How do I enforce a policy on {tool}?",
        f"By a rule that names it. {ADVICE[category].text}{_checked(category, parameters)}",
        advice.under("policy", "tools", advice.rule(server, name, category, parameters)),
    )
    risk = f"{classed(found)} Its severity, the harm that one call can do, is {found.severity}."
    yield _ruled(
        name,
        f"What risk level is {tool}?",
        f"{risk} {_else(category)}",
        advice.named(server, name, category, found.severity),
        otherwise=risk,
    )
    yield _ruled(
        name,
        f"Can I limit how often {tool} is called?",
        f"Yes. {_limit(category)} {OVER}",
        advice.limited(server, name, category),
    )
    yield _ruled(
        name,
        f"How do I block {tool} completely?",
        "Hide it: it is gone from the list that agents see, and every call of it is denied.",
        advice.blocked(server, name),
    )
    yield Answer(
        question=f"What server provides {tool}?",
        text=f"{_provider(server, listed=listed)} A rule for all of that server's tools:",
        yaml=advice.whole(server),
    )


def _ruled(name: str, question: str, text: str, yaml: str, otherwise: str = DENIED) -> Answer:
    """Answer with config that names the tool, if config can name it."""
    if not TOOL_NAME.fullmatch(name):
        return Answer(question=question, text=otherwise)
    return Answer(question=question, text=text, yaml=yaml)


def classed(found: ToolClassification) -> str:
    """Say which risk class it is, and whose word that is."""
    if found.risk is not RISKS[found.category]:
        return f"Its risk class is {found.risk}, by the operator's config."
    return f"Its risk class is {found.risk}, as that of every {found.category}."


def _checked(category: Category, parameters: Declared) -> str:
    if category is not Category.EXECUTE:
        return ""
    if not checks(parameters):
        return " Its parameters cannot all be written down here, so add the check of the arguments yourself."
    return (
        " The bounds below let through what is declared and no more; tighten them to what your agents need."
    )


def _else(category: Category) -> str:
    if category is Category.OTHER:
        return "Say what it is; until you do, it counts as a tool that changes something:"
    return "If that is wrong, say what is right; your word beats the classifier's:"


def _limit(category: Category) -> str:
    usual = ADVICE[category].per_minute
    if usual is None:
        return f"No limit is usual for {a(category)}; this one is low."
    return f"Usual for {a(category)} are {usual} calls a minute."


def _provider(server: str, *, listed: bool) -> str:
    return f"The server that the config calls {server}{'' if listed else ', although its list does not have it'}."


def a(category: Category) -> str:
    """Return a category with its article."""
    return f"{'an' if category[0] in 'EO' else 'a'} {category}"
