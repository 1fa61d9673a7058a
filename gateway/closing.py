"""Closes a JSON Schema: an object that declares members has no others, unless the schema says something else (PURE)."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
#: Keywords that say themselves which other members there may be.
OPEN = ("additionalProperties", "unevaluatedProperties")
#: Keywords whose value is a schema, a list of schemas, or schemas by name, for the value itself (2020-12, core, 10.2).
_ONE, _LIST, _NAMED = ("if", "then", "else"), ("allOf", "anyOf", "oneOf"), ("dependentSchemas",)


def closed(schema: Schema) -> dict[str, Any]:
    """Return *schema* in which each object that declares members has no others; those that are required are declared."""
    made = _closed(schema, schema)
    return made if isinstance(made, dict) else {}


def _closed(schema: Any, root: Schema) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    made = _closed_inside(schema, root)
    parts = list(_in_place(schema, root, ()))
    if any("properties" in part for part in parts) and not any(
        word in part for part in parts for word in OPEN
    ):
        required = {name: True for part in parts for name in _names(part.get("required"))}
        made["properties"] = {**required, **made.get("properties", {})}
        made["additionalProperties" if len(parts) == 1 else "unevaluatedProperties"] = False
    return made


def _closed_inside(schema: Schema, root: Schema) -> dict[str, Any]:
    """Return *schema* with what it says of members and items closed, and itself left as it is."""
    made = dict(schema)
    for word in ("properties", "patternProperties"):
        if isinstance(inner := schema.get(word), Mapping):
            made[word] = {name: _closed(one, root) for name, one in inner.items()}
    for word in ("items", "additionalProperties", "unevaluatedProperties"):
        if word in schema:
            made[word] = _closed(schema[word], root)
    if isinstance(items := schema.get("prefixItems"), list):
        made["prefixItems"] = [_closed(one, root) for one in items]
    for word in _LIST:
        if isinstance(inner := schema.get(word), list):
            made[word] = [_inside(one, root) for one in inner]
    return made


def _inside(schema: Any, root: Schema) -> Any:
    return _closed_inside(schema, root) if isinstance(schema, Mapping) else schema


def _in_place(schema: Any, root: Schema, seen: tuple[str, ...]) -> Iterator[Schema]:
    """Yield *schema* and each schema in it that is for the same value, those that it refers to included."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for word in _ONE:
        yield from _in_place(schema.get(word), root, seen)
    for word in _LIST:
        for one in inner if isinstance(inner := schema.get(word), list) else ():
            yield from _in_place(one, root, seen)
    for word in _NAMED:
        for one in inner.values() if isinstance(inner := schema.get(word), Mapping) else ():
            yield from _in_place(one, root, seen)
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        yield from _in_place(_referred(reference, root), root, (*seen, reference))


def _referred(reference: str, root: Schema) -> Any:
    """Return what a reference into the same schema (`#/$defs/x`) names, or None."""
    found: Any = root if reference.startswith("#") else None
    for part in reference.split("/")[1:]:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _names(required: Any) -> list[str]:
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
