"""Translates a policy of PolicyLayer, its Intercept proxy or its catalogue pages into Okayed's format (PURE).

The translation is never more permissive. A part without an equivalent requires approval, leaves a comment at its
place, and is listed in the notes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.config.problems import ConfigProblems
from gateway.config.yaml import read_document
from gateway.errors import UserError
from gateway.policy.policylayer.conditions import (
    TranslationError,
    condition_to_cel,
    negation_to_cel,
    presence_to_cel,
)
from gateway.policy.policylayer.document import (
    CommentedRule,
    escape_references,
    limit_to_listed,
    read_reason,
    title_comments,
    to_comment_line,
    to_yaml,
)
from gateway.policy.policylayer.limits import counter_maximum, parse_rate, translate_duration, translate_limit
from gateway.wire.frames import TOOL_NAME

_TITLES = frozenset({"name", "description"})
_MESSAGE = _TITLES | {"on_deny", "reason", "message"}
_TOP = _TITLES | {"version", "$schema", "default", "hide", "tools", "all_tools", "approvals"}
_RULE = _MESSAGE | {"action", "rate_limit", "conditions", "state", "approval_timeout"}
_TOOL = _RULE | {"rules", "require", "deny_if", "limits"}
_RATE = frozenset({"max", "window", "per", "on_exceed"})
_STATE = frozenset({"counter", "window", "increment", "increment_from"})
_LIMIT = _MESSAGE | _RATE | _STATE | {"scope"}
_CONDITION = _MESSAGE | {"path", "op", "value"}
#: The characters of a tool pattern; a tool of any other name is denied anyway.
_PATTERN = re.compile(r"[A-Za-z0-9_.*?/-]+")
#: A tuple, because the file may have an unhashable value here.
_ACTIONS = ("allow", "deny", "require_approval")
APPROVAL_REQUIRED = "approval is required"
#: The same for a pattern, if the default denies tools that are not listed.
APPROVAL_REQUIRED_IF_LISTED = "approval is required for listed tools, and others are denied"
_PARTIAL_REASON = {"reason": "This rule was imported only in part, so it requires approval"}

Source = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedPolicy:
    """A `policy:` mapping in YAML, and notes on the parts without an equivalent."""

    yaml: str
    notes: tuple[str, ...]


class _LiteralEnvironment(dict[str, str]):
    """An environment that keeps every `${...}` reference literal, as other gateways do."""

    def __missing__(self, name: str) -> str:
        return f"${{{name}}}"


def translate(text: str, origin: str) -> ImportedPolicy:
    """Translate a policy; *origin* is named in the first comment. Raises `UserError` if it is not a policy."""
    if not text.strip():
        raise UserError(f"{origin} is empty.")
    document = read_document(text, _LiteralEnvironment(), lambda name: f"${{file:{name}}}", title=origin)
    if document.problems:
        raise ConfigProblems(*document.problems)
    source = document.value
    if not source.keys() & {"tools", "default", "hide", "all_tools"}:
        source = {"tools": source}
        if not all(isinstance(tool, dict) and tool.keys() & _TOOL for tool in source["tools"].values()):
            raise UserError(
                f"{origin} is not a PolicyLayer or Intercept policy; those have tools:, default: or hide:."
            )
    return _Translation(source).translate(origin)


class _Translation:
    """One pass over a policy: collects rules by pattern, and notes."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._notes: list[str] = []
        #: The comments above `default`.
        self._top: list[str] = []
        #: The outcome for parts without an equivalent in the current rule.
        self._fallback = APPROVAL_REQUIRED
        self._denies = False
        self._counters: set[str] = set()

    def translate(self, origin: str) -> ImportedPolicy:
        """Translate the whole policy."""
        default = self._default()
        self._denies = default == "deny"
        self._start_tool("*")
        hide = list(self._hide())
        tools: dict[str, list[CommentedRule]] = {}
        for name, lines in (*self._all_tools(), *self._tools()):
            tools[name] = [*tools.get(name, []), *lines]
        if self._denies:
            tools = limit_to_listed(tools)
        head = [f"Imported from {origin} by okayed import.", str(self._source.get("description") or "")]
        kept = {name: lines for name, lines in tools.items() if lines}
        return ImportedPolicy(
            yaml=to_yaml(filter(None, head), self._top, default, hide, kept), notes=tuple(self._notes)
        )

    # Top-level keys.

    def _default(self) -> str:
        default = self._source.get("default")
        if default in _ACTIONS:
            return str(default)
        if default is not None:
            self._add_note("default", f"{default!r} is unknown, so tools without a rule are denied")
            return "deny"
        if "version" in self._source:
            return "allow"  # Intercept's default
        # Not a note: a rule from a catalogue page belongs in a policy that has a default.
        self._top.append("It has no default, so tools without a rule require approval.")
        return "require_approval"

    def _hide(self) -> Iterator[str]:
        for number, name in enumerate(_to_list(self._source.get("hide"))):
            if isinstance(name, str) and _PATTERN.fullmatch(name):
                yield name
            else:
                self._add_note(f"hide[{number}]", f"no tool can have the name {name!r}")

    def _all_tools(self) -> Iterator[tuple[str, list[CommentedRule]]]:
        """Yield the rules for every tool; an unknown key may be a restriction, so it requires approval."""
        if str(self._source.get("version", "1")) != "1":
            yield "*", [self._untranslated("version", "only version 1 is supported")]
        for key in sorted(self._source.keys() - _TOP):
            yield "*", [self._untranslated(key, "this key is unknown")]
        if "approvals" in self._source:
            self._add_note(
                "approvals", "set times under approvals: and notifications under webhooks: in the config"
            )
        yield "*", list(self._translate_tool("*", "all_tools", self._source.get("all_tools")))

    def _tools(self) -> Iterator[tuple[str, list[CommentedRule]]]:
        tools = self._source.get("tools") or {}
        if not isinstance(tools, Mapping):
            yield "*", [self._untranslated("tools", "this is not a mapping")]
            return
        # If the file requires approval by default, a tool with only a limit requires it too.
        allows = self._source.get("default") != "require_approval"
        for name, tool in tools.items():
            path = f"tools.{name}"
            if not _PATTERN.fullmatch(name):
                self._add_note(path, "no tool can have this name")
                continue
            if name != "*" and not TOOL_NAME.fullmatch(name):
                self._add_note(
                    path, "this is not a tool name; its restrictions are translated as for a pattern"
                )
            lines = list(self._translate_tool(name, path, tool))
            if allows and TOOL_NAME.fullmatch(name) and not any(map(_is_unconditional, lines)):
                lines.insert(0, CommentedRule(rule={"action": "allow"}))
            yield name, lines

    # Tools.

    def _start_tool(self, name: str) -> None:
        """Start reading the rules of a tool or pattern."""
        self._fallback = (
            APPROVAL_REQUIRED_IF_LISTED
            if self._denies and not TOOL_NAME.fullmatch(name)
            else APPROVAL_REQUIRED
        )

    def _translate_tool(self, name: str, path: str, tool: Any) -> Iterator[CommentedRule]:
        self._start_tool(name)
        if tool is None:
            return
        if not isinstance(tool, Mapping):
            yield self._untranslated(path, "this is not a mapping")
            return
        yield from self._unknown(path, tool, _TOOL)
        if own := {key: tool[key] for key in tool if key in _RULE}:
            yield from self._translate_rule(name, path, own)
        for key, translated in (
            ("rules", self._translate_rule),
            ("require", self._translate_requirement),
            ("deny_if", self._translate_denial),
            ("limits", self._translate_limit),
        ):
            for number, item in enumerate(_to_list(tool.get(key))):
                where = f"{path}.{key}[{number}]"
                if isinstance(item, Mapping):
                    yield from translated(name, where, item)
                else:
                    yield self._untranslated(where, "this is not a mapping")

    def _translate_rule(self, name: str, path: str, rule: Source) -> Iterator[CommentedRule]:
        yield from self._unknown(path, rule, _RULE)
        conditions, state = _to_list(rule.get("conditions")), rule.get("state")
        if "rate_limit" in rule:
            yield self._translate_rate(name, path, rule)
        match rule.get("action") or ("evaluate" if conditions else None):
            case "deny":
                if conditions:
                    self._add_note(f"{path}.conditions", "they are ignored; every call is denied")
                yield _commented({"action": "deny"}, rule)
            case "require_approval":
                yield self._translate_approval(path, rule, conditions)
            case "allow" if not conditions and not state and TOOL_NAME.fullmatch(name):
                yield _commented({"action": "allow"}, rule)
            case "evaluate" if conditions:
                yield from self._translate_conditions(name, path, rule, conditions)
            case None | "evaluate" if "rate_limit" in rule and not state:
                return
            case None if not rule.keys() - _TITLES:
                return
            case "allow":
                yield self._untranslated(path, _describe_allow(conditions, state), rule)
            case action:
                yield self._untranslated(path, f"the action {action!r} is not supported", rule)

    # Conditions.

    def _translate_conditions(
        self, name: str, path: str, rule: Source, conditions: list[Any]
    ) -> Iterator[CommentedRule]:
        """Translate a rule whose conditions must all hold: each becomes a rule that denies, or a limit."""
        has_bound = False
        for number, condition in enumerate(conditions):
            where = f"{path}.conditions[{number}]"
            merged = (
                {**condition, **{key: rule[key] for key in rule.keys() & _MESSAGE}}
                if isinstance(condition, Mapping)
                else {}
            )
            if str(merged.get("path")).startswith("state."):
                yield self._translate_counter(name, where, merged, rule.get("state"))
                has_bound = True
            else:
                yield from self._translate_requirement(name, where, merged)
        if "state" in rule and not has_bound:
            self._add_note(f"{path}.state", "no condition bounds this counter, so it has no effect")

    def _translate_requirement(self, _: str, path: str, condition: Source) -> Iterator[CommentedRule]:
        try:
            when = f"!({condition_to_cel(*_read_condition(condition))})"
        except TranslationError as why:
            yield self._untranslated(path, str(why), condition)
            return
        yield _commented({"when": when, "action": "deny"}, condition)

    def _translate_denial(self, _: str, path: str, condition: Source) -> Iterator[CommentedRule]:
        """Deny unless the condition certainly fails; require approval if its argument is missing."""
        try:
            where, op, value = _read_condition(condition)
            when = f"!({negation_to_cel(where, op, value)})"
            present = presence_to_cel(where)
        except TranslationError as why:
            yield self._untranslated(path, str(why), condition)
            return
        if op != "exists":
            ask = {
                "when": f"!({present})",
                "action": "require_approval",
                "reason": escape_references(f"{where} is missing"),
            }
            yield CommentedRule(rule=ask, comments=title_comments(condition))
            when = f"{present} && {when}"
        yield _commented({"when": when, "action": "deny"}, condition)

    def _translate_approval(self, path: str, rule: Source, conditions: list[Any]) -> CommentedRule:
        """Require approval if all conditions hold; one without an equivalent is taken as true."""
        comments, negated = list(title_comments(rule)), []
        translated: dict[str, Any] = {"action": "require_approval", **read_reason(rule)}
        for number, condition in enumerate(conditions):
            try:
                negated.append(negation_to_cel(*_read_condition(condition)))
            except TranslationError as why:
                comments.append(self._note(f"{path}.conditions[{number}]", f"{why}; it is taken as true"))
        if negated:
            either = negated[0] if len(negated) == 1 else " || ".join(f"({failure})" for failure in negated)
            translated = {"when": f"!({either})", **translated}
        if rule.get("state"):
            comments.append(self._note(f"{path}.state", "a rule that requires approval has no counter"))
        if "approval_timeout" in rule:
            try:
                translated["expire_after"] = translate_duration(rule["approval_timeout"])
            except TranslationError as why:
                comments.append(self._note(f"{path}.approval_timeout", str(why)))
        return CommentedRule(rule=translated, comments=tuple(comments))

    # Limits.

    def _translate_rate(self, name: str, path: str, rule: Source) -> CommentedRule:
        limit = rule["rate_limit"]
        try:
            if isinstance(limit, Mapping):
                _refuse_unknown(limit, _RATE)
                return _commented(translate_limit(name, limit.get("max"), limit.get("window"), limit), rule)
            most, unit = parse_rate(limit)
            self._claim_counter(f"{name} _rate_{unit}")
            return _commented(translate_limit(name, most, unit, {}), rule)
        except TranslationError as why:
            return self._untranslated(f"{path}.rate_limit", str(why), rule)

    def _translate_limit(self, name: str, path: str, limit: Source) -> Iterator[CommentedRule]:
        try:
            _refuse_unknown(limit, _LIMIT)
            self._claim_counter(str(limit.get("counter", path)))
            yield _commented(translate_limit(name, limit.get("max"), limit.get("window"), limit), limit)
        except TranslationError as why:
            yield self._untranslated(path, str(why), limit)

    def _translate_counter(self, name: str, path: str, condition: Source, state: Any) -> CommentedRule:
        """Translate a bound on the rule's own counter into a limit; other uses of a counter have no equivalent."""
        try:
            if not isinstance(state, Mapping):
                raise TranslationError("its rule has no counter")
            _refuse_unknown(state, _STATE)
            counter, op, value = _read_condition(condition)
            scope = "_global" if name == "*" else name
            if counter != f"state.{scope}.{state.get('counter')}":
                raise TranslationError(f"it reads the counter {counter} of another rule")
            self._claim_counter(counter)
            if (most := counter_maximum(op, value)) < 0:
                return _commented({"action": "deny"}, condition)
            return _commented(translate_limit(name, most, state.get("window"), state), condition)
        except TranslationError as why:
            return self._untranslated(path, str(why), condition)

    def _claim_counter(self, counter: str) -> None:
        if counter in self._counters:
            raise TranslationError("another limit uses the same counter")
        self._counters.add(counter)

    # Parts without an equivalent.

    def _unknown(self, path: str, source: Source, known: frozenset[str]) -> Iterator[CommentedRule]:
        for key in sorted(source.keys() - known):
            yield self._untranslated(f"{path}.{key}", "this key is unknown")

    def _untranslated(self, path: str, why: str, source: Source | None = None) -> CommentedRule:
        """Return a rule that requires approval, in place of a part without an equivalent."""
        comments = (*title_comments(source or {}), self._note(path, f"{why}; {self._fallback}"))
        return CommentedRule(
            rule={"action": "require_approval", **(read_reason(source or {}) or _PARTIAL_REASON)},
            comments=comments,
        )

    def _add_note(self, path: str, why: str) -> None:
        self._top.append(self._note(path, why))

    def _note(self, path: str, why: str) -> str:
        note = to_comment_line(f"{path}: {why}")
        self._notes.append(note)
        return f"NO EQUIVALENT: {note}"


def _describe_allow(conditions: list[Any], state: Any) -> str:
    """Describe an allow without an equivalent; only a plain allow for a tool name has one."""
    kind = "with conditions" if conditions else "with a counter" if state else "for a pattern"
    return f"an allow {kind} is not supported"


def _commented(rule: dict[str, Any], source: Source) -> CommentedRule:
    """Add the reason and the titles of the original rule."""
    return CommentedRule(rule={**rule, **read_reason(source)}, comments=title_comments(source))


def _to_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _refuse_unknown(source: Source, known: frozenset[str]) -> None:
    if unknown := sorted(source.keys() - known):
        raise TranslationError(f"the key {unknown[0]} is unknown")


def _read_condition(condition: Any) -> tuple[str, str, Any]:
    """Return path, operator and value of a condition; raises `TranslationError`."""
    if not isinstance(condition, Mapping) or not {"path", "op"} <= condition.keys():
        raise TranslationError("this is not a condition with path, op and value")
    _refuse_unknown(condition, _CONDITION)
    return str(condition["path"]), str(condition["op"]), condition.get("value")


def _is_unconditional(line: CommentedRule) -> bool:
    return "action" in line.rule and "when" not in line.rule
