"""Explains why the shape of a config is wrong: unknown keys, wrong types and values (PURE)."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import jsonschema_rs

from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.schema import build_schema


@cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(build_schema(), offline=True)


def explain_shape(value: Any) -> Iterator[Problem]:
    """Report everything in a config that its schema does not allow."""
    for error in _validator().iter_errors(value):
        yield from _explain(error)


def _explain(error: jsonschema_rs.ValidationError) -> Iterator[Problem]:
    """Explain one schema error; for a choice between types, the errors inside the intended type."""
    path: Path = tuple(error.instance_path)
    kind = error.kind
    match kind:
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
            known = _known_keys(error)
            for name in kind.unexpected:
                yield Problem((*path, name), f"there is no key {name!r} here{did_you_mean(name, known)}.")
        case jsonschema_rs.ValidationErrorKind.Required():
            yield Problem(path, f"the key {kind.property!r} is missing.")
        case jsonschema_rs.ValidationErrorKind.Enum():
            options = [str(option) for option in kind.options]
            close = did_you_mean(error.instance, options)
            yield Problem(path, f"{error.instance!r} is not one of {', '.join(options)}{close}.")
        case jsonschema_rs.ValidationErrorKind.AnyOf():
            yield from _explain_alternatives(error)
        case jsonschema_rs.ValidationErrorKind.Type():
            yield Problem(path, f"this must be {_type_names(kind.types)}.")
        case _:
            yield Problem(path, f"{error.message}.")


def _known_keys(error: jsonschema_rs.ValidationError) -> list[str]:
    node: Any = build_schema()
    for part in error.schema_path[:-1]:
        node = node[part]
    return list(node.get("properties", {}))


def _explain_alternatives(error: jsonschema_rs.ValidationError) -> Iterator[Problem]:
    path = list(error.instance_path)
    branches = [list(branch) for branch in getattr(error.kind, "context", [])]
    intended = [branch for branch in branches if not any(_is_wrong_type(inner, path) for inner in branch)]
    if intended:
        for inner in intended[0]:
            yield from _explain(inner)
        return
    types = [
        kind
        for branch in branches
        for inner in branch
        if _is_wrong_type(inner, path)
        for kind in inner.kind.types
    ]
    yield Problem(tuple(path), f"this must be {_type_names([kind for kind in types if kind != 'null'])}.")


def _is_wrong_type(error: jsonschema_rs.ValidationError, path: list[Any]) -> bool:
    return (
        isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Type) and list(error.instance_path) == path
    )


_TYPE_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


def _type_names(types: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(_TYPE_NAMES.get(kind, kind) for kind in types))
