"""Compiles the conditions on a call: CEL for `when`, JSON Schema 2020-12 for `arguments` (PURE)."""

import re
from ast import literal_eval
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.policy.closed_schema import close
from gateway.wire.member_names import format_argument_path, schema_members

#: The variables of a `when` condition.
VARIABLES = frozenset({"args", "tool", "server", "agent", "risk"})
#: CEL's type names, which its parser lists among the variables: `type(args.x) == map`.
TYPES = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"})
#: The tokens of an expression: strings, names and single signs.
_TOKEN = re.compile(
    r"""(?x) (?P<text> [rRbB]{0,2} (?: "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' ) ) | (?P<name> [A-Za-z_]\w* ) | (?P<sign> \S )"""
)
#: Variables bound by a macro: `args.to.all(one, one.endsWith("@example.org"))`.
_MACRO_NAME = re.compile(r"\.(?:all|exists|exists_one|filter|map)\(\s*(\w+)\s*,")


class ConditionError(Exception):
    """A condition in the config is invalid; the message is one line."""


@dataclass(frozen=True, slots=True)
class EvaluationFailure:
    """The reason why a condition could not be evaluated for a call."""

    why: str


class CelExpression:
    """A compiled CEL expression; raises `ConditionError` if *source* is invalid."""

    def __init__(self, source: str) -> None:
        import cel  # loaded only for configs with conditions

        self.source = source
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            raise ConditionError(f"this is not valid CEL: {_cel_error(error)}") from error
        if unknown := sorted(
            set(self._program.variables()) - VARIABLES - TYPES - set(_MACRO_NAME.findall(source))
        ):
            raise ConditionError(
                f"there is no variable {unknown[0]}; a condition may use {', '.join(sorted(VARIABLES))}"
            )

    def __call__(self, variables: Mapping[str, Any]) -> bool | EvaluationFailure:
        """Evaluate the condition on a call's variables; never raises."""
        try:
            value = self._program.execute(dict(variables))
        except KeyError as error:
            return EvaluationFailure(f"there is no {error.args[0]}")
        except Exception as error:  # noqa: BLE001  (the engine may raise anything; the call must still be judged)
            return EvaluationFailure(str(error).partition(":")[0].partition(".")[0])
        return value if isinstance(value, bool) else EvaluationFailure("its value is not a boolean")

    @property
    def member_names(self) -> Iterator[str]:
        """The member names in the expression: `args.x`, `args["x"]`, `"x" in args`."""
        tokens = [(found.lastgroup, found[0]) for found in _TOKEN.finditer(self.source)]
        padded = [("", "")] * 3 + tokens + [("", "")]
        for (_, first), (_, root), (_, before), (kind, token), (_, after) in zip(
            padded, padded[1:], padded[2:], padded[3:], padded[4:], strict=False
        ):
            of_risk = root == "risk" and first != "."  # `risk.category`, but not `args.risk.category`
            if kind == "name" and before == "." and after != "(" and not of_risk:
                yield token
            elif kind == "text" and (after == "in" or (before, after) == ("[", "]")):
                yield literal_eval(token.lstrip("rRbB"))


def _cel_error(error: ValueError) -> str:
    lines = [line for line in str(error).splitlines() if "ERROR" in line]
    return (lines[0].partition("ERROR: <input>:")[2] or lines[0]) if lines else str(error).splitlines()[0]


class ArgumentsSchema:
    """A compiled JSON Schema, as written and closed. References are not fetched; patterns match in linear time."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        import jsonschema_rs  # loaded only for configs with schemas

        #: The member names in the schema.
        self.member_names = frozenset(schema_members(schema))
        try:
            self._validators = [
                jsonschema_rs.Draft202012Validator(
                    variant, offline=True, pattern_options=jsonschema_rs.RegexOptions()
                )
                for variant in (dict(schema), close(schema))
            ]
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise ConditionError(f"this is not a valid JSON Schema: {str(error).splitlines()[0]}") from error

    def __call__(self, arguments: Mapping[str, Any]) -> str | None:
        """Return the first violation, with its path, or None."""
        errors = (error for validator in self._validators for error in validator.iter_errors(arguments))
        error = next(errors, None)
        return None if error is None else f"{format_argument_path(error.instance_path)}: {error.message}"
