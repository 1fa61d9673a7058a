"""Writes an imported policy as YAML: rules with comments above them (PURE)."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from json import dumps
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from gateway.wire.frames import TOOL_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class CommentedRule:
    """One translated rule, and the comments above it."""

    rule: Mapping[str, Any]
    comments: tuple[str, ...] = ()


def title_comments(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the name and description of a rule, for the comment above it."""
    return tuple(str(source[key]) for key in ("name", "description") if source.get(key))


def read_reason(source: Mapping[str, Any]) -> dict[str, str]:
    """Return the reason or message of a rule, as a `reason` of the translated rule."""
    found = next((source[key] for key in ("on_deny", "reason", "message") if source.get(key)), None)
    return {} if found is None else {"reason": escape_references(to_comment_line(str(found)))}


def escape_references(text: str) -> str:
    """Escape `${`, which the config reader would expand."""
    return text.replace("${", "$ {")


def to_comment_line(text: str) -> str:
    """Return text on one line without hidden characters, so that it cannot leave its comment."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def limit_to_listed(tools: Mapping[str, list[CommentedRule]]) -> dict[str, list[CommentedRule]]:
    """Restrict patterns that require approval to listed tools, because the default denies all others."""
    listed = sorted(name for name in tools if TOOL_NAME.fullmatch(name))
    guard = f"tool in {dumps(listed)}"

    def guarded(line: CommentedRule) -> CommentedRule:
        if line.rule.get("action") != "require_approval":
            return line
        when = f"{guard} && ({line.rule['when']})" if "when" in line.rule else guard
        return replace(line, rule={"when": when, **{k: v for k, v in line.rule.items() if k != "when"}})

    return {
        name: lines if TOOL_NAME.fullmatch(name) else [guarded(line) for line in lines]
        for name, lines in tools.items()
    }


def to_yaml(
    head: Iterable[str],
    top: Iterable[str],
    default: str,
    hide: list[str],
    tools: Mapping[str, Iterable[CommentedRule]],
) -> str:
    """Write a `policy:` mapping; *head* comments start the file, *top* comments stand above `default`."""
    policy = CommentedMap(default=default)
    if tools:
        policy["tools"] = CommentedMap({name: _to_sequence(lines) for name, lines in tools.items()})
    if hide:
        policy["hide"] = hide
    _add_comment(policy, "default", top, indent=2)
    document = CommentedMap(policy=policy)
    document.yaml_set_start_comment("\n".join(map(to_comment_line, head)))
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
    where: CommentedMap | CommentedSeq, key: str | int, comments: Iterable[str], *, indent: int
) -> None:
    if text := "\n".join(map(to_comment_line, comments)):
        where.yaml_set_comment_before_after_key(key, before=text, indent=indent)
