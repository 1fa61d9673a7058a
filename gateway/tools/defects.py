"""What is wrong with a tool's definition, so that calls of it cannot be judged or shown for what they are (PURE).

A tool with a flaw is taken out of lists and denied when it is called, with the flaw as the reason.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema_rs

from gateway.wire.frames import TOOL_NAME

#: The longest definition, in bytes of JSON, that people could be shown.
MAX_DEFINITION = 256 << 10
_HEADER_CHARACTERS = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
_HEADER_TYPES = frozenset({"string", "integer", "boolean"})


def find_duplicates(definitions: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the names that a list has more than once, read with and without case."""
    folded = Counter(str(one.get("name")).casefold() for one in definitions)
    return frozenset(name for one in definitions if folded[(name := str(one.get("name"))).casefold()] > 1)


def find_defect(definition: Mapping[str, Any], written: bytes) -> str:
    """Return what is wrong with one definition, or ""; *written* is the definition as JSON."""
    return next(_find_defects(definition, written), "")


def _find_defects(definition: Mapping[str, Any], written: bytes) -> Iterator[str]:
    if not TOOL_NAME.fullmatch(str(definition.get("name"))):
        yield "its name is not one that a tool may have"
    if len(written) > MAX_DEFINITION:
        yield f"its definition is longer than {MAX_DEFINITION >> 10} KiB"
    for member in ("inputSchema", "outputSchema"):
        schema = definition.get(member, {})
        if not isinstance(schema, dict):
            yield f"its {member} is not an object"
        elif (wrong := _schema_error(schema)) is not None:
            yield f"its {member} cannot be used: {wrong}"
    yield from _header_defects(definition.get("inputSchema"), b'"x-mcp-header"' in written)


def _schema_error(schema: Mapping[str, Any]) -> str | None:
    """Say why a schema cannot be used; what it refers to elsewhere is never fetched."""
    try:
        jsonschema_rs.validator_for(_drop_unknown_draft(schema), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        return str(error).splitlines()[0]
    return None


def _drop_unknown_draft(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema without the name of a draft that nobody knows; it is then one of 2020-12."""
    draft = str(schema.get("$schema", ""))
    known = draft.startswith(("https://json-schema.org/draft/", "http://json-schema.org/draft-"))
    return {name: member for name, member in schema.items() if known or name != "$schema"}


def _header_defects(schema: Any, mirrors: bool) -> Iterator[str]:
    """Say what is wrong with the headers that arguments are to be mirrored in (2026-07-28, `x-mcp-header`)."""
    seen: set[str] = set()
    for name, asked in _header_properties(schema) if mirrors else ():
        header = asked["x-mcp-header"]
        if not isinstance(header, str) or not header or not _HEADER_CHARACTERS.issuperset(header):
            yield f"the header of {name} is no name that a header may have"
        elif asked.get("type") not in _HEADER_TYPES:
            yield f"the header of {name} is to carry something else than text, a whole number or true and false"
        elif header.lower() in seen:
            yield f"the header {header} is asked for twice"
        seen.add(str(header).lower())


def _header_properties(schema: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Walk the properties of a schema, and those inside them, for the ones that are to be mirrored."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        if isinstance(inner, dict) and "x-mcp-header" in inner:
            yield name, inner
        yield from _header_properties(inner)
