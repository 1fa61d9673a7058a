"""PURE. Reads a tool's name: its words, the prefix its siblings share, and the verb that decides.

The verb leads (`create_user`) or trails (`policy_generation_start`). Where a name can be read in two ways the
stricter reading wins; a name without a known verb is a Read only if it ends in a noun that can only be read.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from gateway.lexicon import (
    ENDS_AS_NOUN,
    JOINS,
    MANNERS,
    NAMES_A_THING,
    READOUTS,
    REPORTS,
    SET_NOUNS,
    SINKS,
    STATES,
    VERBS,
    WRAPPERS,
    Category,
    Verb,
)

NAME_LIMIT = 256
_EDGE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[a-z0-9]+")
_SHARED = 0.6
RANK = {
    Category.READ: 0,
    Category.OTHER: 1,
    Category.WRITE: 2,
    Category.EXECUTE: 3,
    Category.FINANCIAL: 4,
    Category.DESTRUCTIVE: 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a name says: its category, how sure that is (0..1), the deciding word, and a sentence that says why."""

    category: Category
    confidence: float
    word: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the names of one server's tools say together."""

    prefix: tuple[str, ...] = ()
    namespaces: frozenset[str] = frozenset()
    nouns: frozenset[str] = frozenset()


@lru_cache(maxsize=8192)
def split(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: `getUserByID2` is get, user, by, id."""
    parts = _WORD.findall(_EDGE.sub(" ", name[:NAME_LIMIT]).lower())
    return tuple(part.rstrip("0123456789") if part.rstrip("0123456789") in VERBS else part for part in parts)


@lru_cache(maxsize=256)
def family(siblings: tuple[str, ...]) -> Family:
    """What the siblings share; remembered for each tuple of names."""
    names = [split(name) for name in siblings if isinstance(name, str)]
    prefix = _prefix(names)
    rest = [words[len(prefix):] if words[: len(prefix)] == prefix else words for words in names]
    endings: defaultdict[str, set[str]] = defaultdict(set)
    nouns: set[str] = set()
    for words in rest:
        if len(words) > 1 and words[-1] in VERBS and words[0] not in MANNERS:
            endings[words[0]].add(words[-1])
        if words and _firm(words[0]):
            nouns.update(words[1:])
    spaces = (word for word, ends in endings.items() if len(ends) > 1 and not _firm(word))
    return Family(prefix=prefix, namespaces=frozenset(spaces), nouns=frozenset(nouns))


def _prefix(names: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The leading words that most names share; a firm verb is never part of it."""
    prefix: tuple[str, ...] = ()
    while len(names) >= 3:
        depth = len(prefix)
        deeper = [words for words in names if len(words) > depth + 1 and words[:depth] == prefix]
        if not deeper:
            return prefix
        word, times = Counter(words[depth] for words in deeper).most_common(1)[0]
        verbs = sum(1 for words in deeper if words[depth] == word and words[depth + 1] in VERBS)
        if times < _SHARED * len(names) or _firm(word) or (word in VERBS and verbs < times / 2):
            return prefix
        prefix = (*prefix, word)
    return prefix


def _firm(word: str) -> bool:
    verb = VERBS.get(word)
    return verb is not None and verb.firm


def core(name: str, kin: Family) -> tuple[str, ...]:
    """The words of a name without what every tool of its server says, and without wrappers such as `mcp`."""
    words = split(name)
    if len(words) > len(kin.prefix) and words[: len(kin.prefix)] == kin.prefix:
        words = words[len(kin.prefix):]
    while len(words) > 1 and words[0] in WRAPPERS:
        words = words[1:]
    while len(words) > 1 and words[-1] in WRAPPERS:
        words = words[:-1]
    while len(words) > 1 and words[0] in MANNERS:
        words = words[1:]
    return words


def read(name: str, kin: Family) -> Reading:
    """What the name says of the tool."""
    words = core(name, kin)
    if not words:
        return Reading(category=Category.OTHER, confidence=0.1, word="", why="The name has no word that can be read.")
    found = [None if _is_noun(words, at) else VERBS.get(word) for at, word in enumerate(words)]
    if len(words) > 1 and words[0] in kin.namespaces:
        found[0] = None
    joined = _joined(words, found)
    reading = _leading(words, found, kin) if found[0] else _nounfirst(words, found, kin)
    return joined if joined and RANK[joined.category] > RANK[reading.category] else reading


def _is_noun(words: tuple[str, ...], at: int) -> bool:
    return at > 0 and words[at] == "set" and words[at - 1] in SET_NOUNS


def _joined(words: tuple[str, ...], found: Sequence[Verb | None]) -> Reading | None:
    """A second verb behind and/or: `get_or_create` creates."""
    verbs = [
        verb for at, verb in enumerate(found) if verb and at > 1 and words[at - 1] in JOINS and not _reads(verb)
    ]
    if not verbs:
        return None
    worst = max(verbs, key=lambda verb: RANK[verb.category])
    return _say(worst, 0.85, "joins a second verb")


def _reads(verb: Verb) -> bool:
    return verb.category is Category.READ


def _say(verb: Verb, confidence: float, place: str) -> Reading:
    why = f'The name {place}, "{verb.word}", which {verb.meaning}.'
    return Reading(category=verb.category, confidence=confidence, word=verb.word, why=why)


def _worst(verbs: Sequence[Verb]) -> Verb:
    return max(verbs, key=lambda verb: RANK[verb.category])


def _leading(words: tuple[str, ...], found: Sequence[Verb | None], kin: Family) -> Reading:
    lead = found[0]
    assert lead is not None
    if _reads(lead):
        return _leading_read(words, found, lead)
    if lead.firm:
        return _say(lead, 0.93, "begins with a verb")
    return _leading_loose(words, found, lead, kin)


def _leading_read(words: tuple[str, ...], found: Sequence[Verb | None], lead: Verb) -> Reading:
    """A reading verb leads; a verb of action at the end, or right behind a loose one, overrules it."""
    last = found[-1]
    if last and last.firm and not _reads(last) and words[-1] not in ENDS_AS_NOUN:
        return _say(last, 0.7, "ends in a verb")
    second = found[1] if len(words) > 1 else None
    if not lead.firm and second and second.firm and not _reads(second):
        return _say(second, 0.7, f'has a verb behind "{lead.word}"')
    if any(word in ("to", "into") and after in SINKS for word, after in zip(words, words[1:], strict=False)):
        return Reading(
            category=Category.WRITE, confidence=0.7, word=lead.word, why="The name says that what is read is written to a file."
        )
    return _say(lead, 0.93 if lead.firm else 0.85, "begins with a verb")


def _leading_loose(words: tuple[str, ...], found: Sequence[Verb | None], lead: Verb, kin: Family) -> Reading:
    """The first word may be a verb or a noun; a firm verb elsewhere shows that it is a noun."""
    actions = [verb for verb in found[1:] if verb and verb.firm and not _reads(verb)]
    if actions:
        return _say(_worst(actions), 0.85, "has a verb")
    readers = [verb for at, verb in enumerate(found) if verb and verb.firm and at in (1, len(words) - 1)]
    if readers:
        return _say(readers[-1], 0.75, "has a verb")
    if len(words) == 2 and lead.word in NAMES_A_THING and words[1] in REPORTS:
        return _readout(words[1], 0.7)
    return _say(lead, 0.8, "begins with a verb")


def _readout(word: str, confidence: float) -> Reading:
    why = f'The name has no verb of action and ends in "{word}", which names something to read.'
    return Reading(category=Category.READ, confidence=confidence, word=word, why=why)


def _nounfirst(words: tuple[str, ...], found: Sequence[Verb | None], kin: Family) -> Reading:
    """A noun leads: the verb is at the end, or somewhere behind the noun, or there is none."""
    last = found[-1]
    actions = [verb for verb in found if verb and verb.firm and not _reads(verb)]
    if last and last.firm and _reads(last) and all(verb.word in ENDS_AS_NOUN for verb in actions):
        return _say(last, 0.88, "begins with a noun and ends in a verb")
    if actions:
        place = "begins with a noun and ends in a verb" if last is actions[-1] else "has a verb behind its noun"
        return _say(_worst(actions), 0.88, place)
    if last and _reads(last) and words[-1] != "report":
        return _say(last, 0.85, "begins with a noun and ends in a verb")
    return _nounfirst_loose(words, found, kin)


def _nounfirst_loose(words: tuple[str, ...], found: Sequence[Verb | None], kin: Family) -> Reading:
    verbs = [verb for verb in found if verb]
    if verbs and _reads(verbs[0]):
        return _say(verbs[0], 0.8, "has a verb behind its noun")
    if words[-1] in READOUTS and all(verb.word in NAMES_A_THING or verb is found[-1] for verb in verbs):
        return _readout(words[-1], 0.7)
    if verbs:
        return _say(_worst(verbs), 0.7, "has a verb behind its noun")
    return _verbless(words, kin)


def _verbless(words: tuple[str, ...], kin: Family) -> Reading:
    fused = next((verb for word in words if (verb := _fused(word))), None)
    if fused:
        return _say(fused, 0.6, "contains a verb")
    known = len(words) == 1 or words[-2] in kin.nouns or words[-2] in kin.prefix or words[0] in kin.namespaces
    if words[-1] in STATES and known:
        return _readout(words[-1], 0.6)
    by = words.index("by") if "by" in words else 0
    if by and words[by - 1].endswith("s"):
        return Reading(
            category=Category.READ, confidence=0.6, word="by", why='The name has no verb and selects a list with "by".'
        )
    return Reading(category=Category.OTHER, confidence=0.2, word="", why="The name has no word that says what the tool does.")


_FUSIBLE = tuple(
    verb for verb in VERBS.values() if verb.firm and not verb.category is Category.READ and len(verb.word) > 4
)


def _fused(word: str) -> Verb | None:
    """The verb of action a single word begins with: `createorupdate`."""
    if len(word) < 7:
        return None
    return next((verb for verb in _FUSIBLE if word.startswith(verb.word)), None)
