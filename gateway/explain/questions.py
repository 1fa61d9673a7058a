"""PURE. The six questions that a reader has about a tool, answered for it, with config that can be pasted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from approvals import safetext
from gateway.explain import advice
from gateway.explain.advice import ADVICE
from gateway.explain.parameters import ParameterList, propose_schema
from gateway.tools.classify.risk import MEANINGS, RISKS, Category, ToolClassification
from gateway.wire.frames import TOOL_NAME

#: What to do with the config that is shown.
PASTE_HINT = "Config that is shown goes below the same keys of your own; look over it with: okayed check"
OVER_LIMIT = "A call over the limit is denied and told when to try again; with on_exceed: require_approval it waits for a person."
#: The answer where no rule could name the tool.
DENIED = "Every call of it is denied already: its name is not one that a tool may have."


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionAnswer:
    """A question that a reader has about a tool, its answer, and config to paste or ""."""

    question: str
    text: str
    yaml: str = ""


def answer_questions(
    server: str, name: str, found: ToolClassification, parameters: ParameterList, does: str, *, listed: bool
) -> Iterator[QuestionAnswer]:
    """Answer the questions; *does* says what the tool does."""
    tool, category = safetext.ascii_name(name), found.category
    yield QuestionAnswer(question=f"What does {tool} do?", text=f"{does} {MEANINGS[category]}")
    yield _answer_with_rule(
        name,
        f"How do I enforce a policy on {tool}?",
        f"By a rule that names it. {ADVICE[category].text}{_arguments_note(category, parameters)}",
        advice.nest("policy", "tools", advice.build_rule(server, name, category, parameters)),
    )
    risk = f"{describe_risk(found)} Its severity, the harm that one call can do, is {found.severity}."
    yield _answer_with_rule(
        name,
        f"What risk level is {tool}?",
        f"{risk} {_override_note(category)}",
        advice.build_override(server, name, category, found.severity),
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
        "Hide it: it is gone from the list that agents see, and every call of it is denied.",
        advice.build_hide(server, name),
    )
    yield QuestionAnswer(
        question=f"What server provides {tool}?",
        text=f"{_describe_server(server, listed=listed)} A rule for all of that server's tools:",
        yaml=advice.build_server_rule(server),
    )


def _answer_with_rule(
    name: str, question: str, text: str, yaml: str, otherwise: str = DENIED
) -> QuestionAnswer:
    """Answer with config that names the tool, if config can name it."""
    if not TOOL_NAME.fullmatch(name):
        return QuestionAnswer(question=question, text=otherwise)
    return QuestionAnswer(question=question, text=text, yaml=yaml)


def describe_risk(found: ToolClassification) -> str:
    """Say which risk class it is, and whose word that is."""
    if found.risk is not RISKS[found.category]:
        return f"Its risk class is {found.risk}, by the operator's config."
    return f"Its risk class is {found.risk}, as that of every {found.category}."


def _arguments_note(category: Category, parameters: ParameterList) -> str:
    if category is not Category.EXECUTE:
        return ""
    if not propose_schema(parameters):
        return " Its parameters cannot all be written down here, so add the check of the arguments yourself."
    return (
        " The bounds below let through what is declared and no more; tighten them to what your agents need."
    )


def _override_note(category: Category) -> str:
    if category is Category.OTHER:
        return "Say what it is; until you do, it counts as a tool that changes something:"
    return "If that is wrong, say what is right; your word beats the classifier's:"


def _usual_limit(category: Category) -> str:
    usual = ADVICE[category].per_minute
    if usual is None:
        return f"No limit is usual for {with_article(category)}; this one is low."
    return f"Usual for {with_article(category)} are {usual} calls a minute."


def _describe_server(server: str, *, listed: bool) -> str:
    return f"The server that the config calls {server}{'' if listed else ', although its list does not have it'}."


def with_article(category: Category) -> str:
    """Return a category with its article."""
    return f"{'an' if category[0] in 'EO' else 'a'} {category}"
