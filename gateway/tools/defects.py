"""Finds tool definitions whose calls cannot be judged or shown correctly (PURE).

A defective tool is removed from lists, and its calls are denied with the defect as the reason.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema_rs

from gateway.wire.frames import TOOL_NAME

#: The longest definition that can be shown, in bytes of JSON.
MAX_DEFINITION = 256 << 10
#: The characters of a header name (RFC 9110, section 5.6.2, "token").
_HEADER_CHARACTERS = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
_HEADER_TYPES = frozenset({"string", "integer", "boolean"})


def find_duplicates(definitions: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the names that occur more than once, ignoring case."""
    folded = Counter(str(tool.get("name")).casefold() for tool in definitions)
    return frozenset(name for tool in definitions if folded[(name := str(tool.get("name"))).casefold()] > 1)


def find_defect(definition: Mapping[str, Any], canonical: bytes) -> str:
    """Return the first defect of a definition, or ""; *canonical* is the definition as JSON."""
    return next(_find_defects(definition, canonical), "")


def _find_defects(definition: Mapping[str, Any], canonical: bytes) -> Iterator[str]:
    if not TOOL_NAME.fullmatch(str(definition.get("name"))):
        yield "its name is invalid"
    if len(canonical) > MAX_DEFINITION:
        yield f"its definition is longer than {MAX_DEFINITION >> 10} KiB"
    for member in ("inputSchema", "outputSchema"):
        schema = definition.get(member, {})
        if not isinstance(schema, dict):
            yield f"its {member} is not an object"
        elif (wrong := _schema_error(schema)) is not None:
            yield f"its {member} is invalid: {wrong}"
    yield from _header_defects(definition.get("inputSchema"), b'"x-mcp-header"' in canonical)


def _schema_error(schema: Mapping[str, Any]) -> str | None:
    """Return why a schema is invalid, or None; external references are never fetched."""
    try:
        jsonschema_rs.validator_for(_drop_unknown_draft(schema), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        return str(error).splitlines()[0]
    return None


def _drop_unknown_draft(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema without an unknown $schema; it is then read as 2020-12."""
    draft = str(schema.get("$schema", ""))
    known = draft.startswith(("https://json-schema.org/draft/", "http://json-schema.org/draft-"))
    return {name: member for name, member in schema.items() if known or name != "$schema"}


def _header_defects(schema: Any, mirrors: bool) -> Iterator[str]:
    """Yield the invalid header annotations (2026-07-28, "Custom Headers from Tool Parameters")."""
    seen: set[str] = set()
    for name, spec in _header_properties(schema) if mirrors else ():
        header = spec["x-mcp-header"]
        if not isinstance(header, str) or not header or not _HEADER_CHARACTERS.issuperset(header):
            yield f"the header of {name} is not a valid header name"
        elif spec.get("type") not in _HEADER_TYPES:
            yield f"the header of {name} mirrors a type other than string, integer or boolean"
        elif header.lower() in seen:
            yield f"the header {header} is declared twice"
        seen.add(str(header).lower())


def _header_properties(schema: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the properties of a schema, at any depth, that are mirrored in a header."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        if isinstance(inner, dict) and "x-mcp-header" in inner:
            yield name, inner
        yield from _header_properties(inner)
