"""Lists the declared parameters of a tool, safe to show, and proposes an argument schema (PURE)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from approvals.safetext import ascii_name as safe_name
from approvals.safetext import one_line
from gateway.tools.classify.naming import PLAIN

#: The most parameters shown of one tool, and the most characters of each description.
MAX_SHOWN = 100
MAX_LINE = 160
#: The maxLength of a string in the proposed schema, for the operator to tighten.
MAX_TEXT = 2000
_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One declared parameter; `line` is its description, or its allowed values."""

    name: str
    type: str
    required: bool
    line: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterList:
    """The declared parameters of a tool: the first `MAX_SHOWN`, and the numbers of all."""

    shown: tuple[Parameter, ...]
    total: int
    required: int

    @property
    def summary(self) -> str:
        """The number of parameters, in words."""
        if not self.total:
            return "No parameters"
        return f"{self.total} parameter{'' if self.total == 1 else 's'}, {self.required or 'none'} required"


def build_parameter_list(definition: Mapping[str, Any]) -> ParameterList:
    """Build the list of parameters from a tool's definition; tolerates a malformed schema."""
    schema = definition.get("inputSchema")
    schema = schema if isinstance(schema, Mapping) else {}
    found = schema.get("properties")
    found = found if isinstance(found, Mapping) else {}
    required = {name for name in _list(schema.get("required")) if isinstance(name, str)} & found.keys()
    shown = tuple(
        _read_parameter(name, spec, name in required) for name, spec in islice(found.items(), MAX_SHOWN)
    )
    return ParameterList(shown=shown, total=len(found), required=len(required))


def propose_schema(found: ParameterList) -> Sequence[str]:
    """Propose a JSON Schema, as lines of YAML, that allows only the declared parameters.

    Returns () if a name is unusual or there are too many, because a partial schema would deny the rest.
    """
    if found.total > len(found.shown) or not all(PLAIN.match(parameter.name) for parameter in found.shown):
        return ()
    properties = [
        f"  {json.dumps(parameter.name)}: {_property_schema(parameter.type)}" for parameter in found.shown
    ]
    return ["additionalProperties: false", *(["properties:", *properties] if properties else [])]


def _property_schema(kind: str) -> str:
    if kind == "string":
        return f"{{type: string, maxLength: {MAX_TEXT}}}"
    return f"{{type: {kind}}}" if kind in _TYPES else "{}"


def _read_parameter(name: str, spec: object, required: bool) -> Parameter:
    spec = spec if isinstance(spec, Mapping) else {}
    description = spec.get("description")
    values = _list(spec.get("enum"))
    line = description if isinstance(description, str) and description.strip() else _list_values(values)
    kinds = list(dict.fromkeys(_json_types(spec)))
    return Parameter(
        name=safe_name(name),
        type=" or ".join(kinds) or "any",
        required=required,
        line=one_line(line[: 4 * MAX_LINE], MAX_LINE),
    )


def _list_values(values: Sequence[object]) -> str:
    scalars = [value for value in values if isinstance(value, (str, int, float))]
    return f"One of {', '.join(str(value)[:MAX_LINE] for value in scalars[:20])}." if scalars else ""


def _json_types(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the JSON types that a schema and its alternatives allow."""
    branches = [
        branch for key in ("anyOf", "oneOf") for branch in _list(spec.get(key)) if isinstance(branch, Mapping)
    ]
    for part in (spec, *branches):
        kind = part.get("type")
        yield from (name for name in (_list(kind) or [kind]) if name in _TYPES)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
