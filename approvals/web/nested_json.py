"""Unpacks strings that contain JSON, such as policy documents, so that people can read them."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from approvals.redact import redact
from approvals.safetext import escape_hidden

#: Documents unpacked at most. The arguments show all of them anyway.
MAX_DOCUMENTS = 20


def unpack_json(arguments: bytes) -> Sequence[tuple[str, str]]:
    """Return the path and the indented text, safe to show, of each string that contains a JSON object or list."""
    found: list[tuple[str, str]] = []
    for path, text in _strings(json.loads(arguments), ""):
        if len(found) < MAX_DOCUMENTS and (document := _document(text)):
            found.append((escape_hidden(path), document))
    return found


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for name, member in value.items():
                yield from _strings(member, f"{path}.{name}" if path else name)
        case list():
            for index, item in enumerate(value):
                yield from _strings(item, f"{path}[{index}]")
        case str():
            yield path, value


def _document(text: str) -> str:
    """Return *text* indented, or "" if it is not JSON or repeats a member."""
    if not text.lstrip().startswith(("{", "[")):
        return ""
    try:
        json.loads(text, object_pairs_hook=_unique_members)
        return escape_hidden(redact(text.encode()).text)
    except (ValueError, RecursionError):
        return ""


def _unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(members)) != len(members):
        raise ValueError("repeated member: servers differ in which one they use")
    return dict(members)
