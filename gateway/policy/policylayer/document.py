"""An imported policy on its way into YAML: rules of ours, each with what is said above it (PURE)."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq


@dataclass(frozen=True, slots=True, kw_only=True)
class CommentedRule:
    """One rule of ours, and what is said above it."""

    rule: Mapping[str, Any]
    comments: tuple[str, ...] = ()


def title_comments(told: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a rule is called, for the comment above it."""
    return tuple(str(told[key]) for key in ("name", "description") if told.get(key))


def read_reason(told: Mapping[str, Any]) -> dict[str, str]:
    """Return what the author of a rule wants to be read, as a part of a rule of ours."""
    found = next((told[key] for key in ("on_deny", "reason", "message") if told.get(key)), None)
    return {} if found is None else {"reason": escape_references(one_line(str(found)))}


def escape_references(text: str) -> str:
    """Return text that the config's reader fills nothing into."""
    return text.replace("${", "$ {")


def one_line(text: str) -> str:
    """Return text without line breaks and hidden characters, so that a comment stays one."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def to_yaml(
    head: Iterable[str], top: Iterable[str], default: str, hide: list[str], tools: Mapping[str, Iterable[CommentedRule]],
) -> str:  # fmt: skip
    """Return a `policy:` mapping; *head* and *top* are comments for its beginning."""
    policy = CommentedMap(default=default)
    if tools:
        policy["tools"] = CommentedMap({name: _to_sequence(lines) for name, lines in tools.items()})
    if hide:
        policy["hide"] = hide
    _add_comment(policy, "default", top, indent=2)
    document = CommentedMap(policy=policy)
    document.yaml_set_start_comment("\n".join(map(one_line, head)))
    out = io.StringIO()
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 110
    yaml.dump(document, out)
    return out.getvalue()


def _to_sequence(lines: Iterable[CommentedRule]) -> CommentedSeq:
    rules = CommentedSeq()
    for number, line in enumerate(lines):
        rules.append(CommentedMap(line.rule))
        _add_comment(rules, number, line.comments, indent=6)
    return rules


def _add_comment(
    where: CommentedMap | CommentedSeq, key: str | int, told: Iterable[str], *, indent: int
) -> None:
    if text := "\n".join(map(one_line, told)):
        where.yaml_set_comment_before_after_key(key, before=text, indent=indent)
