"""Splits tool names into words; finds the prefix and the nouns of a server's tool names (PURE)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from gateway.tools.classify.lexicon import MANNERS, VERBS, WRAPPERS

#: The most similar siblings quoted, the longest name in characters, and the most siblings read.
MAX_SIBLINGS_NAMED = 3
NAME_LIMIT = 256
MAX_SIBLINGS = 5_000
#: A name that may be quoted in evidence.
PLAIN = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z")
_EDGE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[a-z0-9]+")
#: The share of names that must begin with a prefix, from 0 to 1.
_SHARED = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class SiblingNames:
    """The tool names of one server: shared prefix, namespaces, nouns, and whether verbs come last."""

    names: frozenset[str] = frozenset()
    prefix: tuple[str, ...] = ()
    verb_last: bool = False
    namespaces: frozenset[str] = frozenset()
    nouns: frozenset[str] = frozenset()
    by_word: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def find_similar(self, name: str, words: Iterable[str]) -> list[str]:
        """Return a few siblings of the tool *name* that use one of these words."""
        found = dict.fromkeys(user for word in words for user in self.by_word.get(word, ()) if user != name)
        return list(found)[:MAX_SIBLINGS_NAMED]


def split_words(name: str) -> tuple[str, ...]:
    """Split a name into words in lower case: `getUserByID2` is get, user, by, id."""
    return _split_words(name[:NAME_LIMIT])


@lru_cache(maxsize=8192)
def _split_words(name: str) -> tuple[str, ...]:
    parts = _WORD.findall(_EDGE.sub(" ", name).lower())
    return tuple(part.rstrip("0123456789") if part.rstrip("0123456789") in VERBS else part for part in parts)


def analyze_siblings(siblings: Iterable[object]) -> SiblingNames:
    """Analyze the names of sibling tools, cached by tuple; ignores values that are not names."""
    names = siblings if isinstance(siblings, tuple) else tuple(islice(siblings, MAX_SIBLINGS))
    try:
        return _analyze(names)
    except TypeError:  # an unhashable value is not a name
        return _analyze(tuple(name for name in names if isinstance(name, str)))


@lru_cache(maxsize=256)
def _analyze(values: tuple[object, ...]) -> SiblingNames:
    siblings = [name for name in values[:MAX_SIBLINGS] if isinstance(name, str) and len(name) <= NAME_LIMIT]
    names = [split_words(name) for name in siblings]
    prefix = _shared_prefix(names)
    rest = [words[len(prefix) :] if words[: len(prefix)] == prefix else words for words in names]
    endings: defaultdict[str, set[str]] = defaultdict(set)
    nouns: set[str] = set()
    for words in rest:
        if len(words) > 1 and words[-1] in VERBS and (_is_firm(words[-1]) or words[0] not in VERBS):
            endings[words[0]].add(words[-1])
        if words and _is_firm(words[0]):
            nouns.update(words[1:])
    spaces = (
        word for word, ends in endings.items() if len(ends) > 1 and not _is_firm(word) and word not in MANNERS
    )
    verbs_at_end = sum(1 for words in rest if len(words) > 1 and words[-1] in VERBS and words[0] not in VERBS)
    verb_last = len(rest) > 3 and verbs_at_end >= len(rest) / 2
    users = _siblings_by_word(siblings, prefix)
    return SiblingNames(
        names=frozenset(siblings),
        prefix=prefix,
        verb_last=verb_last,
        namespaces=frozenset(spaces),
        nouns=frozenset(nouns),
        by_word=users,
    )


def _siblings_by_word(siblings: Iterable[str], prefix: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Index the first few siblings by word, except names with unusual characters, which are never quoted."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for name in siblings:
        if PLAIN.match(name):
            for word in split_words(name)[len(prefix) :]:
                if len(users[word]) <= MAX_SIBLINGS_NAMED:
                    users[word].append(name)
    return {word: tuple(names) for word, names in users.items()}


def _shared_prefix(names: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the leading words that most names share; a firm verb is never part of it."""
    prefix: tuple[str, ...] = ()
    while len(names) >= 3:
        depth = len(prefix)
        deeper = [words for words in names if len(words) > depth + 1 and words[:depth] == prefix]
        if not deeper:
            return prefix
        word, times = Counter(words[depth] for words in deeper).most_common(1)[0]
        verbs = sum(1 for words in deeper if words[depth] == word and words[depth + 1] in VERBS)
        if times < _SHARED * len(names) or _is_firm(word) or (word in VERBS and verbs < times / 2):
            return prefix
        prefix = (*prefix, word)
    return prefix


def _is_firm(word: str) -> bool:
    verb = VERBS.get(word)
    return verb is not None and verb.firm


def core_words(name: str, siblings: SiblingNames) -> tuple[str, ...]:
    """Split a name into words, without the shared prefix, wrappers (`mcp`) and leading manners (`bulk`)."""
    words = split_words(name)
    if len(words) > len(siblings.prefix) and words[: len(siblings.prefix)] == siblings.prefix:
        words = words[len(siblings.prefix) :]
    while len(words) > 1 and words[0] in WRAPPERS:
        words = words[1:]
    while len(words) > 1 and words[-1] in WRAPPERS:
        words = words[:-1]
    while len(words) > 1 and words[0] in MANNERS:
        words = words[1:]
    return words
