"""Closes a JSON Schema: an object that declares members may have no others, unless the schema allows them (PURE).

The closed schema is checked in addition to the schema as written. It must not replace it: closing a schema inside
`not` or `anyOf` may allow more.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
#: Keywords that decide about other members.
OPENING = ("additionalProperties", "unevaluatedProperties")
#: Keywords that apply schemas to the same value: a schema, a list, or a mapping (2020-12, core, 10.2).
_SAME_SINGLE, _SAME_LIST, _SAME_NAMED = (
    ("if", "then", "else"),
    ("allOf", "anyOf", "oneOf"),
    ("dependentSchemas",),
)
#: Keywords that apply schemas to members or items: a schema, a list, or a mapping (2020-12, core, 10.3).
_INNER_SINGLE = ("items", "unevaluatedItems", *OPENING)
_INNER_LIST, _INNER_NAMED = ("prefixItems",), ("properties", "patternProperties")
#: Schemas that are only referenced; each is closed where it is used.
_DEFINITIONS = ("$defs", "definitions")
#: Stands for a reference that is not followed, whose schema may declare members.
_UNKNOWN: Schema = {"properties": {}}


def close(schema: Schema) -> dict[str, Any]:
    """Close *schema*: each object that declares members allows only these and the required ones."""
    closed = _close(schema, schema)
    return closed if isinstance(closed, dict) else {}


def _close(schema: Any, root: Schema) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    closed = _close_inner(schema, root)
    parts = list(_same_value_schemas(schema, root, ()))
    if any("properties" in part for part in parts) and not any(
        word in part for part in parts for word in OPENING
    ):
        required = {name: True for part in parts for name in _required_names(part.get("required"))}
        closed["properties"] = {**required, **closed.get("properties", {})}
        closed["additionalProperties" if len(parts) == 1 else "unevaluatedProperties"] = False
    return closed


def _close_inner(schema: Any, root: Schema) -> Any:
    """Close the schemas of members and items, but not *schema* itself; leaves `if` unchanged."""
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    for apply, singles, lists, mappings in (
        (_close, _INNER_SINGLE, _INNER_LIST, _INNER_NAMED),
        (_close_inner, ("then", "else"), _SAME_LIST, (*_SAME_NAMED, *_DEFINITIONS)),
    ):
        for word in schema.keys() & {*singles}:
            closed[word] = apply(schema[word], root)
        for word in lists:
            if isinstance(inner := schema.get(word), list):
                closed[word] = [apply(part, root) for part in inner]
        for word in mappings:
            if isinstance(inner := schema.get(word), Mapping):
                closed[word] = {name: apply(part, root) for name, part in inner.items()}
    return closed


def _same_value_schemas(schema: Any, root: Schema, seen: tuple[str, ...]) -> Iterator[Schema]:
    """Yield *schema* and every subschema for the same value, following references."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for part in _same_value_parts(schema):
        yield from _same_value_schemas(part, root, seen)
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        yield from _same_value_schemas(_resolve(reference, root), root, (*seen, reference))
    if "$dynamicRef" in schema:
        yield _UNKNOWN


def _same_value_parts(schema: Schema) -> Iterator[Any]:
    """Yield the direct subschemas for the same value."""
    for word in schema.keys() & {*_SAME_SINGLE, *_SAME_LIST, *_SAME_NAMED}:
        match schema[word]:
            case list(parts) if word in _SAME_LIST:
                yield from parts
            case Mapping() as named if word in _SAME_NAMED:
                yield from named.values()
            case part:
                yield part


def _resolve(reference: str, root: Schema) -> Any:
    """Resolve a pointer into the same schema (`#/$defs/x`); other references are not followed."""
    head, *parts = reference.split("/")
    if head != "#" or "~" in reference or "%" in reference:
        return _UNKNOWN
    found: Any = root
    for part in parts:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _required_names(required: Any) -> list[str]:
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
