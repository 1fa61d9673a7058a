"""Finds member names that a server may confuse, such as `amount` and `AMOUNT` (PURE).

Go's encoding/json and other parsers ignore case, and the last match wins. `{"amount": 1, "AMOUNT": 60000}` would then
pass a rule on `args.amount`. A call is therefore denied if a member resembles a known name without being it.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from approvals.safetext import one_line, remove_hidden

#: The longest name quoted in a denial, in characters.
LONGEST = 60
#: The keywords whose value is data, not a schema (JSON Schema 2020-12, validation).
_DATA_KEYWORDS = frozenset({"const", "default", "enum", "examples", "required"})


Path = tuple[str | int, ...]
_CONTAINERS = (dict, list)


def format_argument_path(path: Iterable[str | int]) -> str:
    """Format the path of a value in a call's arguments: `arguments.items[0].amount`."""
    return "arguments" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def fold(name: str) -> str:
    """Fold case, width and hidden characters of *name*: NFKC and case folding (Unicode, UAX #31)."""
    return next(fold_all([name]))


def fold_all(names: Iterable[str]) -> Iterator[str]:
    """Fold many names, in order; folding them as one text is many times faster."""
    text = "\n".join(name.replace("\n", "") for name in names)
    if text.isascii() and text.replace("\n", "").isprintable():
        return iter(text.lower().split("\n"))
    text = unicodedata.normalize("NFD", remove_hidden(text))
    text = text.translate({ord(char): _fold_char(char) for char in set(text)})
    return iter(unicodedata.normalize("NFKC", text).split("\n"))


@lru_cache(maxsize=4096)
def _fold_char(char: str) -> str:
    """Fold one character, by way of upper case: Java's equalsIgnoreCase equates a dotless i with an i."""
    for _ in range(2):
        char = unicodedata.normalize("NFKC", remove_hidden(char)).upper().casefold()
    return unicodedata.normalize("NFKC", remove_hidden(char))


def schema_members(schema: Any) -> Iterator[str]:
    """Yield the member names that a JSON Schema declares or requires, at any depth."""
    if isinstance(schema, list):
        for item in schema:
            yield from schema_members(item)
    if not isinstance(schema, Mapping):
        return
    if isinstance(required := schema.get("required"), list):
        yield from (name for name in required if isinstance(name, str))
    for keyword, value in schema.items():
        if keyword in {"properties", "$defs", "definitions"} and isinstance(value, Mapping):
            yield from value if keyword == "properties" else ()
            yield from schema_members(list(value.values()))
        elif keyword not in _DATA_KEYWORDS:
            yield from schema_members(value)


class KnownNames:
    """The names that a tool declares or a rule uses, by folded form."""

    def __init__(self, declared: Iterable[str], used: Mapping[str, str], *, allow_all: bool = False) -> None:
        """Collect the known names.

        *declared* are the names in the tool's inputSchema. *used* maps each name in a rule to that rule's name.
        *allow_all* allows ambiguous names too.
        """
        self._allow_all = allow_all
        self._known: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for name in declared:
            self._known[fold(name)][name] = "which this tool declares"
        for name, rule in used.items():
            self._known[fold(name)].setdefault(name, f"which the rule {rule} uses")
        allowed = [
            _allowed_spellings(spellings, frozenset(declared), used.keys())
            for spellings in self._known.values()
        ]
        self._allowed = frozenset[str]().union(*allowed)
        #: The allowed names that resemble no other allowed name.
        self._unambiguous = frozenset[str]().union(*(names for names in allowed if len(names) == 1))

    def find_ambiguous(self, arguments: Mapping[str, Any]) -> str | None:
        """Return the first member that resembles a known name or a sibling member, or None."""
        found = None if self._allow_all else self._find(arguments)
        return None if found is None else f"{format_argument_path(found[0])} {found[1]}"

    def _find(self, value: Mapping[str, Any] | list[Any]) -> tuple[Path, str] | None:
        """Return the path of the first ambiguous member, and the problem."""
        items: Iterable[tuple[Any, Any]]
        if isinstance(value, list):
            items = enumerate(value)
        elif not self._unambiguous.issuperset(value) and (found := self._find_in_object(value)):
            return found
        else:
            items = value.items()
        for part, inner in items:
            if isinstance(inner, _CONTAINERS) and (found := self._find(inner)):
                return (one_line(part, LONGEST) if isinstance(part, str) else part, *found[0]), found[1]
        return None

    def _find_in_object(self, members: Mapping[str, Any]) -> tuple[Path, str] | None:
        seen: dict[str, str] = {}
        for name, form in zip(members, fold_all(members), strict=True):
            if why := self._ambiguity(name, form):
                return (one_line(name, LONGEST),), why
            if form in seen:
                return (one_line(name, LONGEST),), f"looks like {_display(seen[form])}, which is also present"
            seen[form] = name
        return None

    def _ambiguity(self, name: str, form: str) -> str | None:
        """Return why *name* is ambiguous, or None; *form* is its folded form."""
        if name in self._allowed or form not in self._known:
            return None
        other, why = next((known, why) for known, why in self._known[form].items() if known != name)
        return f"looks like {_display(other)}, {why}"


def _allowed_spellings(
    spellings: Iterable[str], declared: frozenset[str], used: Iterable[str]
) -> frozenset[str]:
    """Return the *spellings* that may be sent: the declared ones, or only the spelling that rules use."""
    known = frozenset(spellings)
    by_tool, by_rules = known & declared, known.intersection(used)
    if not by_rules:
        return by_tool
    agreed = len(by_rules) == 1 and (not by_tool or by_rules <= by_tool)
    return by_rules if agreed else frozenset()


def _display(name: str) -> str:
    return one_line(name, LONGEST)
