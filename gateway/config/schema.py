"""What is wrong with the shape of a config: keys, kinds and words that the schema does not have (PURE)."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import jsonschema_rs
import msgspec

from gateway.config.options import Config
from gateway.config.yaml import Path, did_you_mean


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the config, for editors and for the check."""
    made = msgspec.json.schema(Config)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Okayed config", **made}


@cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(config_schema(), offline=True)


def shape_problems(value: Any) -> Iterator[tuple[Path, str]]:
    """Yield everything in a config that its schema does not allow."""
    for error in _validator().iter_errors(value):
        yield from _said(error)


def _said(error: jsonschema_rs.ValidationError) -> Iterator[tuple[Path, str]]:
    """Say one error of the schema in words of ours, and those inside the alternative that was meant."""
    path = tuple(error.instance_path)
    kind = error.kind
    match kind:
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
            known = _known(error)
            for name in kind.unexpected:
                yield (*path, name), f"there is no key {name!r} here{did_you_mean(name, known)}."
        case jsonschema_rs.ValidationErrorKind.Required():
            yield path, f"the key {kind.property!r} is missing."
        case jsonschema_rs.ValidationErrorKind.Enum():
            options = [str(option) for option in kind.options]
            yield (
                path,
                f"{error.instance!r} is not one of {', '.join(options)}{did_you_mean(error.instance, options)}.",
            )
        case jsonschema_rs.ValidationErrorKind.AnyOf():
            yield from _alternatives(error)
        case jsonschema_rs.ValidationErrorKind.Type():
            yield path, f"this must be {_kinds(kind.types)}."
        case _:
            yield path, f"{error.message}."


def _known(error: jsonschema_rs.ValidationError) -> list[str]:
    node: Any = config_schema()
    for part in error.schema_path[:-1]:
        node = node[part]
    return list(node.get("properties", {}))


def _alternatives(error: jsonschema_rs.ValidationError) -> Iterator[tuple[Path, str]]:
    path = list(error.instance_path)
    branches = [list(branch) for branch in getattr(error.kind, "context", [])]
    meant = [branch for branch in branches if not any(_wrong_type(inner, path) for inner in branch)]
    if meant:
        for inner in meant[0]:
            yield from _said(inner)
        return
    types = [
        kind
        for branch in branches
        for inner in branch
        if _wrong_type(inner, path)
        for kind in inner.kind.types
    ]
    yield tuple(path), f"this must be {_kinds([kind for kind in types if kind != 'null'])}."


def _wrong_type(error: jsonschema_rs.ValidationError, path: list[Any]) -> bool:
    return (
        isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Type) and list(error.instance_path) == path
    )


_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


def _kinds(types: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(_KINDS.get(kind, kind) for kind in types))
