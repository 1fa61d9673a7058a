"""A policy of PolicyLayer, its Intercept proxy or its catalogue's pages, as a policy of ours (PURE).

What is imported is never laxer: what cannot be said in our policy asks for a person, stands as a comment at its
place, and is listed in the notes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from json import dumps
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
    one_line,
    read_reason,
    title_comments,
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
#: What our patterns may be made of; a tool of any other name is denied anyway.
_PATTERN = re.compile(r"[A-Za-z0-9_.*?/-]+")
#: A tuple, as are all words that a value of the file is looked for in: it may be a list, which no set could be asked for.
_ACTIONS = ("allow", "deny", "require_approval")
ASKS_PERSON = "a person is asked"
#: The same for a rule for many tools, where those that are not listed are denied.
ASKS_PERSON_IF_LISTED = "a person is asked about tools that are listed, and others are denied"
_PARTIAL_REASON = {"reason": "This rule was imported only in part, so a person decides"}

Source = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedPolicy:
    """A `policy:` mapping in YAML, and what of the original had no equal."""

    yaml: str
    notes: tuple[str, ...]


class _LiteralEnvironment(dict[str, str]):
    """An environment that leaves every reference as it stands: it means nothing in the policies of others."""

    def __missing__(self, name: str) -> str:
        return f"${{{name}}}"


def translate(text: str, origin: str) -> ImportedPolicy:
    """Turn a policy into ours; *origin* is named in its first comment. Raises `UserError` when it is none."""
    if not text.strip():
        raise UserError(f"{origin} is empty.")
    document = read_document(text, _LiteralEnvironment(), lambda name: f"${{file:{name}}}", what=origin)
    if document.problems:
        raise ConfigProblems(*document.problems)
    given = document.value
    if not given.keys() & {"tools", "default", "hide", "all_tools"}:
        given = {"tools": given}
        if not all(isinstance(tool, dict) and tool.keys() & _TOOL for tool in given["tools"].values()):
            raise UserError(
                f"{origin} is no policy of PolicyLayer or Intercept; those have tools:, default: or hide:."
            )
    return _Translation(given).result(origin)


class _Translation:
    """One walk through a policy: rules by pattern out, notes kept."""

    def __init__(self, given: Source) -> None:
        self._given = given
        self._notes: list[str] = []
        #: What is said above `default`.
        self._top: list[str] = []
        #: What becomes of a call for which a rule has no equal, as the rule that is being read has it.
        self._instead = ASKS_PERSON
        self._denies = False
        self._counters: set[str] = set()

    def result(self, origin: str) -> ImportedPolicy:
        """Return the whole policy."""
        default = self._default()
        self._denies = default == "deny"
        self._begin("*")
        hide = list(self._hide())
        tools: dict[str, list[CommentedRule]] = {}
        for name, lines in (*self._everywhere(), *self._tools()):
            tools[name] = [*tools.get(name, []), *lines]
        if self._denies:
            tools = _limit_to_listed(tools)
        head = [f"Made from {origin} by okayed import.", str(self._given.get("description") or "")]
        kept = {name: lines for name, lines in tools.items() if lines}
        return ImportedPolicy(
            yaml=to_yaml(filter(None, head), self._top, default, hide, kept), notes=tuple(self._notes)
        )

    # The top.

    def _default(self) -> str:
        default = self._given.get("default")
        if default in _ACTIONS:
            return str(default)
        if default is not None:
            self._said("default", f"{default!r} is not known, so what is not named is denied")
            return "deny"
        if "version" in self._given:
            return "allow"  # as Intercept reads a file that says none
        # Nothing is lost: a rule from a page is for a policy that has a default.
        self._top.append("It says no default, so what is not named asks for a person.")
        return "require_approval"

    def _hide(self) -> Iterator[str]:
        for number, name in enumerate(_to_list(self._given.get("hide"))):
            if isinstance(name, str) and _PATTERN.fullmatch(name):
                yield name
            else:
                self._said(f"hide[{number}]", f"no tool can have the name {name!r}")

    def _everywhere(self) -> Iterator[tuple[str, list[CommentedRule]]]:
        """Yield what is for every tool; what is not understood may be a restriction, so all tools are held."""
        if str(self._given.get("version", "1")) != "1":
            yield "*", [self._held("version", "only version 1 is known")]
        for key in sorted(self._given.keys() - _TOP):
            yield "*", [self._held(key, "this key is not known")]
        if "approvals" in self._given:
            self._said("approvals", "set times under approvals: and notices under webhooks: of the config")
        yield "*", list(self._tool("*", "all_tools", self._given.get("all_tools")))

    def _tools(self) -> Iterator[tuple[str, list[CommentedRule]]]:
        tools = self._given.get("tools") or {}
        if not isinstance(tools, Mapping):
            yield "*", [self._held("tools", "this is not a mapping")]
            return
        # Where the file itself says to ask, a tool that it only limits is asked about, too.
        allows = self._given.get("default") != "require_approval"
        for name, tool in tools.items():
            path = f"tools.{name}"
            if not _PATTERN.fullmatch(name):
                self._said(path, "no tool can have this name")
                continue
            if name != "*" and not TOOL_NAME.fullmatch(name):
                self._said(path, "this is not the name of a tool; its restrictions count as a pattern's")
            lines = list(self._tool(name, path, tool))
            if allows and TOOL_NAME.fullmatch(name) and not any(map(_is_unconditional, lines)):
                lines.insert(0, CommentedRule(rule={"action": "allow"}))
            yield name, lines

    # A tool.

    def _begin(self, name: str) -> None:
        """Note whose rules are read from here on."""
        self._instead = (
            ASKS_PERSON_IF_LISTED if self._denies and not TOOL_NAME.fullmatch(name) else ASKS_PERSON
        )

    def _tool(self, name: str, path: str, tool: Any) -> Iterator[CommentedRule]:
        self._begin(name)
        if tool is None:
            return
        if not isinstance(tool, Mapping):
            yield self._held(path, "this is not a mapping")
            return
        yield from self._unknown(path, tool, _TOOL)
        if own := {key: tool[key] for key in tool if key in _RULE}:
            yield from self._rule(name, path, own)
        for key, translated in (
            ("rules", self._rule), ("require", self._required), ("deny_if", self._denied_if), ("limits", self._limit),
        ):  # fmt: skip
            for number, item in enumerate(_to_list(tool.get(key))):
                where = f"{path}.{key}[{number}]"
                if isinstance(item, Mapping):
                    yield from translated(name, where, item)
                else:
                    yield self._held(where, "this is not a mapping")

    def _rule(self, name: str, path: str, rule: Source) -> Iterator[CommentedRule]:
        yield from self._unknown(path, rule, _RULE)
        conditions, state = _to_list(rule.get("conditions")), rule.get("state")
        if "rate_limit" in rule:
            yield self._rated(name, path, rule)
        match rule.get("action") or ("evaluate" if conditions else None):
            case "deny":
                if conditions:
                    self._said(f"{path}.conditions", "they are not looked at; every call is denied")
                yield CommentedRule(
                    rule={"action": "deny", **read_reason(rule)}, comments=title_comments(rule)
                )
            case "require_approval":
                yield self._approved(path, rule, conditions)
            case "allow" if not conditions and not state and TOOL_NAME.fullmatch(name):
                yield CommentedRule(
                    rule={"action": "allow", **read_reason(rule)}, comments=title_comments(rule)
                )
            case "evaluate" if conditions:
                yield from self._evaluated(name, path, rule, conditions)
            case None | "evaluate" if "rate_limit" in rule and not state:
                return
            case None if not rule.keys() - _TITLES:
                return
            case "allow":
                yield self._held(path, _describe_allow(conditions, state), rule)
            case action:
                yield self._held(path, f"the action {action!r} has no meaning here", rule)

    # Conditions.

    def _evaluated(
        self, name: str, path: str, rule: Source, conditions: list[Any]
    ) -> Iterator[CommentedRule]:
        """All conditions must hold: each is a rule that denies where it does not, or a limit."""
        counted = False
        for number, condition in enumerate(conditions):
            where = f"{path}.conditions[{number}]"
            told = (
                {**condition, **{key: rule[key] for key in rule.keys() & _MESSAGE}}
                if isinstance(condition, Mapping)
                else {}
            )
            if str(told.get("path")).startswith("state."):
                yield self._counted(name, where, told, rule.get("state"))
                counted = True
            else:
                yield from self._required(name, where, told)
        if "state" in rule and not counted:
            self._said(f"{path}.state", "no condition bounds this counter, so it limits nothing")

    def _required(self, _: str, path: str, condition: Source) -> Iterator[CommentedRule]:
        try:
            when = f"!({condition_to_cel(*_read_condition(condition))})"
        except TranslationError as why:
            yield self._held(path, str(why), condition)
            return
        yield CommentedRule(
            rule={"when": when, "action": "deny", **read_reason(condition)},
            comments=title_comments(condition),
        )

    def _denied_if(self, _: str, path: str, condition: Source) -> Iterator[CommentedRule]:
        """Deny where the condition does not surely fail; where its argument is missing, ask."""
        try:
            where, op, value = _read_condition(condition)
            when = f"!({negation_to_cel(where, op, value)})"
            there = presence_to_cel(where)
        except TranslationError as why:
            yield self._held(path, str(why), condition)
            return
        if op != "exists":
            ask = {
                "when": f"!({there})",
                "action": "require_approval",
                "reason": escape_references(f"{where} is missing"),
            }
            yield CommentedRule(rule=ask, comments=title_comments(condition))
            when = f"{there} && {when}"
        yield CommentedRule(
            rule={"when": when, "action": "deny", **read_reason(condition)},
            comments=title_comments(condition),
        )

    def _approved(self, path: str, rule: Source, conditions: list[Any]) -> CommentedRule:
        """Ask where all conditions hold; one that has no equal is taken to hold."""
        above, not_so = list(title_comments(rule)), []
        made: dict[str, Any] = {"action": "require_approval", **read_reason(rule)}
        for number, condition in enumerate(conditions):
            try:
                not_so.append(negation_to_cel(*_read_condition(condition)))
            except TranslationError as why:
                above.append(self._note(f"{path}.conditions[{number}]", f"{why}; it counts as true"))
        if not_so:
            either = not_so[0] if len(not_so) == 1 else " || ".join(f"({one})" for one in not_so)
            made = {"when": f"!({either})", **made}
        if rule.get("state"):
            above.append(self._note(f"{path}.state", "a rule that asks for a person counts nothing"))
        if "approval_timeout" in rule:
            try:
                made["expire_after"] = translate_duration(rule["approval_timeout"])
            except TranslationError as why:
                above.append(self._note(f"{path}.approval_timeout", str(why)))
        return CommentedRule(rule=made, comments=tuple(above))

    # Limits.

    def _rated(self, name: str, path: str, rule: Source) -> CommentedRule:
        asked = rule["rate_limit"]
        try:
            if isinstance(asked, Mapping):
                _refuse_unknown(asked, _RATE)
                return self._line(translate_limit(name, asked.get("max"), asked.get("window"), asked), rule)
            most, unit = parse_rate(asked)
            self._count_once(f"{name} _rate_{unit}")
            return self._line(translate_limit(name, most, unit, {}), rule)
        except TranslationError as why:
            return self._held(f"{path}.rate_limit", str(why), rule)

    def _limit(self, name: str, path: str, given: Source) -> Iterator[CommentedRule]:
        try:
            _refuse_unknown(given, _LIMIT)
            self._count_once(str(given.get("counter", path)))
            yield self._line(translate_limit(name, given.get("max"), given.get("window"), given), given)
        except TranslationError as why:
            yield self._held(path, str(why), given)

    def _counted(self, name: str, path: str, condition: Source, state: Any) -> CommentedRule:
        """A bound on the rule's own counter is a limit; any other look at a counter has no equal."""
        try:
            if not isinstance(state, Mapping):
                raise TranslationError("its rule counts nothing")
            _refuse_unknown(state, _STATE)
            counter, op, value = _read_condition(condition)
            scope = "_global" if name == "*" else name
            if counter != f"state.{scope}.{state.get('counter')}":
                raise TranslationError(f"it looks at the counter {counter} of another rule")
            self._count_once(counter)
            if (most := counter_maximum(op, value)) < 0:
                return self._line({"action": "deny"}, condition)
            return self._line(translate_limit(name, most, state.get("window"), state), condition)
        except TranslationError as why:
            return self._held(path, str(why), condition)

    def _line(self, rule: dict[str, Any], told: Source) -> CommentedRule:
        return CommentedRule(rule={**rule, **read_reason(told)}, comments=title_comments(told))

    def _count_once(self, counter: str) -> None:
        if counter in self._counters:
            raise TranslationError("another limit has the same counter")
        self._counters.add(counter)

    # What has no equal.

    def _unknown(self, path: str, given: Source, known: frozenset[str]) -> Iterator[CommentedRule]:
        for key in sorted(given.keys() - known):
            yield self._held(f"{path}.{key}", "this key is not known")

    def _held(self, path: str, why: str, told: Source | None = None) -> CommentedRule:
        above = (*title_comments(told or {}), self._note(path, f"{why}; {self._instead}"))
        return CommentedRule(
            rule={"action": "require_approval", **(read_reason(told or {}) or _PARTIAL_REASON)},
            comments=above,
        )

    def _said(self, path: str, why: str) -> None:
        self._top.append(self._note(path, why))

    def _note(self, path: str, why: str) -> str:
        note = one_line(f"{path}: {why}")
        self._notes.append(note)
        return f"NO EQUAL: {note}"


def _describe_allow(conditions: list[Any], state: Any) -> str:
    """Say which kind of allow has no equal: only a plain one, for a tool by its name, has."""
    kind = "with conditions" if conditions else "that counts" if state else "for a pattern"
    return f"an allow {kind} cannot be said here"


def _to_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _refuse_unknown(given: Source, known: frozenset[str]) -> None:
    if unknown := sorted(given.keys() - known):
        raise TranslationError(f"the key {unknown[0]} is not known")


def _read_condition(condition: Any) -> tuple[str, str, Any]:
    """Return path, operator and value of a condition; raises `NoEqual`."""
    if not isinstance(condition, Mapping) or not {"path", "op"} <= condition.keys():
        raise TranslationError("this is not a condition of path, op and value")
    _refuse_unknown(condition, _CONDITION)
    return str(condition["path"]), str(condition["op"]), condition.get("value")


def _is_unconditional(line: CommentedRule) -> bool:
    return "action" in line.rule and "when" not in line.rule


def _limit_to_listed(tools: Mapping[str, list[CommentedRule]]) -> dict[str, list[CommentedRule]]:
    """Where the default denies, a rule for many tools that asks must not let in those that are not listed."""
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
