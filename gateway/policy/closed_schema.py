"""Closes a JSON Schema: an object that declares members has no others, unless the schema says something else (PURE).

The closed schema is checked beside the one as written, never in its place: closed inside a `not` or an `anyOf`, a
schema may let through what it would refuse as written.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
#: Keywords that say themselves which other members there may be.
OPENING = ("additionalProperties", "unevaluatedProperties")
#: Keywords whose value is a schema, a list of schemas, or schemas by name, for the value itself (2020-12, core, 10.2).
_SAME_ONE, _SAME_LIST, _SAME_NAMED = (
    ("if", "then", "else"),
    ("allOf", "anyOf", "oneOf"),
    ("dependentSchemas",),
)
#: Keywords whose value is a schema for members or items, a list of them, or such schemas by name (2020-12, core, 10.3).
_INNER_ONE = ("items", "unevaluatedItems", *OPENING)
_INNER_LIST, _INNER_NAMED = ("prefixItems",), ("properties", "patternProperties")
#: Schemas that are only referred to. Like the parts of a schema, each is closed where it is used.
_DEFINITIONS = ("$defs", "definitions")
#: Stands for a schema that a reference names in a way that is not followed here: it may declare members.
_UNKNOWN: Schema = {"properties": {}}


def close(schema: Schema) -> dict[str, Any]:
    """Return *schema* in which each object that declares members has no others; those that are required are declared."""
    made = _close(schema, schema)
    return made if isinstance(made, dict) else {}


def _close(schema: Any, root: Schema) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    made = _close_inner(schema, root)
    parts = list(_same_value_schemas(schema, root, ()))
    if any("properties" in part for part in parts) and not any(
        word in part for part in parts for word in OPENING
    ):
        required = {name: True for part in parts for name in _required_names(part.get("required"))}
        made["properties"] = {**required, **made.get("properties", {})}
        made["additionalProperties" if len(parts) == 1 else "unevaluatedProperties"] = False
    return made


def _close_inner(schema: Any, root: Schema) -> Any:
    """Return *schema* with what it says of members and items closed, and itself left open. A condition stays as it is."""
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    for close, ones, lists, named in (
        (_close, _INNER_ONE, _INNER_LIST, _INNER_NAMED),
        (_close_inner, ("then", "else"), _SAME_LIST, (*_SAME_NAMED, *_DEFINITIONS)),
    ):
        for word in schema.keys() & {*ones}:
            made[word] = close(schema[word], root)
        for word in lists:
            if isinstance(inner := schema.get(word), list):
                made[word] = [close(one, root) for one in inner]
        for word in named:
            if isinstance(inner := schema.get(word), Mapping):
                made[word] = {name: close(one, root) for name, one in inner.items()}
    return made


def _same_value_schemas(schema: Any, root: Schema, seen: tuple[str, ...]) -> Iterator[Schema]:
    """Yield *schema* and each schema in it that is for the same value, those that it refers to included."""
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
    """Yield what stands in *schema* for the same value."""
    for word in schema.keys() & {*_SAME_ONE, *_SAME_LIST, *_SAME_NAMED}:
        match schema[word]:
            case list(parts) if word in _SAME_LIST:
                yield from parts
            case Mapping() as named if word in _SAME_NAMED:
                yield from named.values()
            case part:
                yield part


def _resolve(reference: str, root: Schema) -> Any:
    """Return what a pointer into the same schema (`#/$defs/x`) names; other references are not followed."""
    head, *parts = reference.split("/")
    if head != "#" or "~" in reference or "%" in reference:
        return _UNKNOWN
    found: Any = root
    for part in parts:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _required_names(required: Any) -> list[str]:
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
