"""Translates a PolicyLayer condition (path, operator, value) into CEL (PURE).

The expression is true only if the condition is certainly true. Where the two differ, it is narrower: in PolicyLayer
`5` equals `"5"` but not in CEL, and a missing argument fails there but is an error here.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

#: The largest integer that is exact as a float, which PolicyLayer compares.
EXACT = 2**53 - 1

_NUMBER = "number"
_KINDS = {"string": "type({x}) == string", _NUMBER: "type({x}) in [int, double]", "bool": "type({x}) == bool"}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset({
    "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in",
    "let", "loop", "namespace", "null", "package", "return", "true", "var", "void", "while",
})  # fmt: skip


class TranslationError(Exception):
    """A part of the imported policy has no equivalent; the message says why."""


def condition_to_cel(path: str, op: str, value: Any) -> str:
    """Return CEL that is true only if the condition holds; raises `TranslationError`."""
    if op not in _OPERATORS:
        raise TranslationError(f"the operator {op!r} is not known")
    return _OPERATORS[op](_parts(path), value)


def negation_to_cel(path: str, op: str, value: Any) -> str:
    """Return CEL that is true only if the condition fails; raises `TranslationError`."""
    if op == "exists" and isinstance(value, bool):
        return condition_to_cel(path, op, not value)
    if op not in _OPPOSITES:
        raise TranslationError(f"the operator {op!r} is not known")
    return condition_to_cel(path, _OPPOSITES[op], value)


def presence_to_cel(path: str) -> str:
    """Return CEL that is true if an argument is present and not null, and never errs; raises `TranslationError`."""
    return _present(_parts(path))


def _parts(path: str) -> tuple[str, ...]:
    root, *parts = path.split(".")
    if root != "args" or not parts:
        raise TranslationError(f"{path} is not an argument")
    return tuple(parts)


def _field_of(parent: str, name: str) -> str:
    plain = _IDENTIFIER.fullmatch(name) and name not in _RESERVED
    return f"{parent}.{name}" if plain else f"{parent}[{_literal(name)}]"


def _path_to(parts: tuple[str, ...]) -> str:
    found = "args"
    for part in parts:
        found = _field_of(found, part)
    return found


def _present(parts: tuple[str, ...]) -> str:
    terms: list[str] = []
    for size, part in enumerate(parts):
        parent = _path_to(parts[:size])
        child = _field_of(parent, part)
        terms += [f"type({parent}) == map"] if size else []
        terms.append(f"has({child})" if child.endswith(f".{part}") else f"{_literal(part)} in {parent}")
    return " && ".join([*terms, f"{_path_to(parts)} != null"])


# Values.


def _literal(value: Any) -> str:
    match value:
        case None | bool() | str():
            # The config reader would expand `${`.
            return json.dumps(value, ensure_ascii=False).replace("${", "\\u0024{")
        case int() | float() if _is_exact(value):
            return repr(value)
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case _:
            raise TranslationError(f"it compares with {_display(value)}")


def _is_exact(value: float) -> bool:
    return abs(value) <= EXACT


def _kind_of(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case int() | float() if _is_exact(value):
            return _NUMBER
        case _:
            raise TranslationError(f"it compares with {_display(value)}")


def _display(value: Any) -> str:
    return "a mapping or list" if isinstance(value, Mapping | list) else str(value)


# Operators: each translates a path and a value into CEL.


def _equal(parts: tuple[str, ...], value: Any) -> str:
    return f"{_path_to(parts)} == {_literal(value)}"


def _not_equal(parts: tuple[str, ...], value: Any) -> str:
    """PolicyLayer compares printed values, so the types must be the same."""
    x = _path_to(parts)
    return f"{_KINDS[_kind_of(value)].format(x=x)} && {x} != {_literal(value)}"


def _in(parts: tuple[str, ...], value: Any) -> str:
    return f"{_path_to(parts)} in {_literal(_list(value))}"


def _not_in(parts: tuple[str, ...], value: Any) -> str:
    x = _path_to(parts)
    kinds = {_kind_of(item) for item in _list(value)}
    if len(kinds) != 1:
        raise TranslationError("its list is empty or mixes text and numbers")
    return f"{_KINDS[kinds.pop()].format(x=x)} && !({x} in {_literal(value)})"


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TranslationError("its value is not a list")
    return value


def _comparison(sign: str) -> Callable[[tuple[str, ...], Any], str]:
    def compare(parts: tuple[str, ...], value: Any) -> str:
        if _kind_of(value) != _NUMBER:
            raise TranslationError("its value is not a number")
        return f"{_path_to(parts)} {sign} {_literal(value)}"

    return compare


def _contains(parts: tuple[str, ...], value: Any) -> str:
    x, text = _path_to(parts), _literal(value)
    if _kind_of(value) == "string":
        return f"(type({x}) == list ? {text} in {x} : {x}.contains({text}))"
    return f"type({x}) == list && {text} in {x}"


def _contains_not(parts: tuple[str, ...], value: Any) -> str:
    x, text = _path_to(parts), _literal(value)
    others = f"{x}.all(e, {_KINDS[_kind_of(value)].format(x='e')} && e != {text})"
    if _kind_of(value) == "string":
        return f"(type({x}) == list ? {others} : !{x}.contains({text}))"
    return f"type({x}) == list && {others}"


def _matches(parts: tuple[str, ...], value: Any) -> str:
    return f"{_path_to(parts)}.matches({_literal(_to_cel_regex(value))})"


def _matches_not(parts: tuple[str, ...], value: Any) -> str:
    return f"!{_matches(parts, value)}"


def _exists(parts: tuple[str, ...], value: Any) -> str:
    if not isinstance(value, bool):
        raise TranslationError("its value is not true or false")
    return _present(parts) if value else f"!({_present(parts)})"


_OPERATORS: Mapping[str, Callable[[tuple[str, ...], Any], str]] = {
    "eq": _equal,
    "neq": _not_equal,
    "in": _in,
    "not_in": _not_in,
    "lt": _comparison("<"),
    "lte": _comparison("<="),
    "gt": _comparison(">"),
    "gte": _comparison(">="),
    "contains": _contains,
    "not_contains": _contains_not,
    "regex": _matches,
    "not_regex": _matches_not,
    "exists": _exists,
}
_PAIRS = (
    ("eq", "neq"), ("in", "not_in"), ("lt", "gte"), ("gt", "lte"), ("contains", "not_contains"), ("regex", "not_regex"),
)  # fmt: skip
_OPPOSITES = {left: right for a, b in _PAIRS for left, right in ((a, b), (b, a))}


# Regular expressions: as in Go, except \d, \w, \s and \b (ASCII in Go) and rare constructs, which are refused.

_OUTSIDE = {
    r"\d": "[0-9]", r"\D": "[^0-9]", r"\w": "[0-9A-Za-z_]", r"\W": "[^0-9A-Za-z_]",
    r"\s": r"[\t\n\f\r ]", r"\S": r"[^\t\n\f\r ]", r"\b": r"(?-u:\b)", r"\<": "<", r"\>": ">", "{": r"\{", "}": r"\}",
}  # fmt: skip
_INSIDE = {r"\d": "0-9", r"\w": "0-9A-Za-z_", r"\s": r"\t\n\f\r ", r"\<": "<", r"\>": ">"}
_ESCAPE = r"\\[dwstnrfv!-/:-@\[-`{-~]"
_TOKEN = re.compile(
    rf"(?P<set>\[\^?(?:{_ESCAPE}|[^\[\]\\&~-]|-(?!-))+\])"
    r"|\((?:\?(?:[ims]+:|[ims]+\)|:|P?<\w+>))?|\{\d+(?:,\d*)?\}"
    rf"|{_ESCAPE}|\\[DWSbAz]|[^\\\[]",
    re.DOTALL,
)
_SET_ESCAPE = re.compile(_ESCAPE)


def _to_cel_regex(pattern: Any) -> str:
    if not isinstance(pattern, str):
        raise TranslationError("its pattern is not text")
    made, at = [], 0
    while at < len(pattern):
        if (token := _TOKEN.match(pattern, at)) is None:
            raise TranslationError(
                f"the pattern {pattern} has {pattern[at : at + 2]}, which may mean something else here"
            )
        inside = token["set"] is not None
        made.append(_SET_ESCAPE.sub(_to_ascii, token[0]) if inside else _OUTSIDE.get(token[0], token[0]))
        at = token.end()
    return "".join(made)


def _to_ascii(escape: re.Match[str]) -> str:
    return _INSIDE.get(escape[0], escape[0])
