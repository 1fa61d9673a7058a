"""Strings that are themselves JSON, such as policy documents, unpacked so that a person can read what they say."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from approvals.redact import redact
from approvals.safetext import escape_hidden

#: At most so many are unpacked; all of them are in the arguments above anyway.
MAX_DOCUMENTS = 20


def unpack(arguments: bytes) -> Sequence[tuple[str, str]]:
    """Return the place and the indented text, made safe, of each string that holds a JSON object or list."""
    found: list[tuple[str, str]] = []
    for place, text in _strings(json.loads(arguments), ""):
        if len(found) < MAX_DOCUMENTS and (document := _document(text)):
            found.append((escape_hidden(place), document))
    return found


def _strings(value: Any, place: str) -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for name, member in value.items():
                yield from _strings(member, f"{place}.{name}" if place else name)
        case list():
            for index, item in enumerate(value):
                yield from _strings(item, f"{place}[{index}]")
        case str():
            yield place, value


def _document(text: str) -> str:
    """Return *text* indented, or nothing when it is not JSON that says one thing only."""
    if not text.lstrip().startswith(("{", "[")):
        return ""
    try:
        json.loads(text, object_pairs_hook=_without_repeats)
        return escape_hidden(redact(text.encode()).text)
    except (ValueError, RecursionError):
        return ""


def _without_repeats(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(members)) != len(members):
        raise ValueError("a member is repeated: which one counts is for the server to say")
    return dict(members)
