"""PURE. Reads a tool's name: finds the verb that decides, and says why.

The verb leads (`create_user`) or trails (`policy_generation_start`). Where a name can be read in two ways the
stricter reading wins; a name without a known verb is a Read only if it ends in a noun that can only be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gateway.tools.classify.idioms import IDIOMS
from gateway.tools.classify.lexicon import (
    ACTS_ON_A_LIST,
    COMPLAINTS,
    ENDS_AS_NOUN,
    ENDS_AS_VERB,
    JOINS,
    LISTINGS,
    LISTLIKE,
    NAMES_A_THING,
    NOUNS,
    PREPOSITIONS,
    RANK,
    READOUTS,
    READS_BEHIND_A_NOUN,
    REPORTS,
    SET_NOUNS,
    SINKS,
    STATES,
    VERBS,
    Category,
    Verb,
)
from gateway.tools.classify.naming import NAME_LIMIT, Family, core, split

Verbs = Sequence[Verb | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a name says: its category, how sure that is (0..1), the deciding word, and a sentence that says why."""

    category: Category
    confidence: float
    word: str
    why: str


def read(name: str, kin: Family) -> Reading:
    """What the name says of the tool."""
    words = core(name, kin)
    if not words or not name.isascii() or len(name) > NAME_LIMIT:
        return _unknown("The name has words that cannot be read." if name else "The tool has no name.")
    if len(words) == 1 and words[0] in REPORTS and kin.prefix and kin.prefix[-1] in NOUNS:
        # `git_log` among `git_add` and `git_show`: what every sibling begins with is what the log is of.
        return _idiom(_readout(words[0], 0.7), split(name))
    found = tuple(_verb_at(words, at, kin) for at in range(len(words)))
    reading = _leading(words, found, found[0]) if found[0] else _nounfirst(words, found, kin)
    return _idiom(_stricter(_joined(words, found), reading), split(name))


def _verb_at(words: tuple[str, ...], at: int, kin: Family) -> Verb | None:
    """The verb at this place, unless its neighbours show that the word is a noun there."""
    verb = VERBS.get(words[at])
    if verb is None:
        return None
    before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
    if (verb.word, after) == ("pull", "request") or (before, verb.word) == ("pull", "request"):
        return None
    if at == 0:
        noun = not verb.firm and (_reads(verb) or verb.word in NAMES_A_THING)
        space = words[0] in kin.namespaces or (kin.trailing and noun and words[-1] in VERBS)
        return None if space and after else verb
    if verb.word in ("set", "update", "request") and before in SET_NOUNS:
        return None
    return verb if verb.firm or before not in PREPOSITIONS else None


def _joined(words: tuple[str, ...], found: Verbs) -> Reading | None:
    """Two verbs with and/or between them: `get_or_create` creates, `backup_and_verify` backs up."""
    verbs: list[Verb | None] = []
    for at in range(1, len(words) - 1):
        if words[at] in JOINS and found[at + 1]:
            verbs += (found[at + 1], found[at - 1], found[0])
    return _say(_worst(verbs), 0.85, "joins two verbs, one of them") if verbs else None


def _stricter(one: Reading | None, other: Reading) -> Reading:
    return one if one and RANK[one.category] > RANK[other.category] else other


def _idiom(reading: Reading, words: tuple[str, ...]) -> Reading:
    """The reading that the verb's object gives it, if there is one."""
    for idiom in IDIOMS:
        if reading.word not in idiom.verbs:
            continue
        if objects := idiom.objects.intersection(words) - {reading.word}:
            why = f'The name says "{reading.word}" of "{min(objects)}", which {idiom.meaning}.'
            return Reading(category=idiom.category, confidence=0.85, word=reading.word, why=why)
    return reading


def _reads(verb: Verb) -> bool:
    return verb.category is Category.READ


def _acts(verb: Verb | None) -> bool:
    return verb is not None and verb.firm and not _reads(verb)


def _worst(verbs: Verbs) -> Verb:
    return max((verb for verb in verbs if verb), key=lambda verb: RANK[verb.category])


def _say(verb: Verb, confidence: float, place: str) -> Reading:
    why = f'The name {place}, "{verb.word}", which {verb.meaning}.'
    return Reading(category=verb.category, confidence=confidence, word=verb.word, why=why)


def _unknown(why: str) -> Reading:
    return Reading(category=Category.OTHER, confidence=0.2, word="", why=why)


def _readout(word: str, confidence: float) -> Reading:
    why = f'The name has no verb of action and ends in "{word}", which names something to read.'
    return Reading(category=Category.READ, confidence=confidence, word=word, why=why)


def _leading(words: tuple[str, ...], found: Verbs, lead: Verb) -> Reading:
    if _reads(lead):
        return _leading_read(words, found, lead)
    if not lead.firm:
        return _leading_loose(words, found, lead)
    said = _say(lead, 0.93, "begins with a verb")
    late = _acts(found[-1]) and words[-1] not in ENDS_AS_NOUN
    return _stricter(_say(_worst(found[-1:]), 0.8, "ends in a verb"), said) if late else said


def _leading_read(words: tuple[str, ...], found: Verbs, lead: Verb) -> Reading:
    """A reading verb leads; a verb of action at the end, or right behind a loose one, overrules it."""
    ends = _acts(found[-1]) and words[-1] not in ENDS_AS_NOUN
    if ends or (not lead.firm and len(words) > 1 and found[-1] and words[-1] in ENDS_AS_VERB):
        return _say(_worst(found[-1:]), 0.7, "ends in a verb")
    if not lead.firm and len(words) > 2 and _acts(found[1]) and words[1] not in ENDS_AS_NOUN:
        return _say(_worst(found[1:2]), 0.7, f'has a verb behind "{lead.word}"')
    if words[1:2] in (("and",), ("or",), ("then",)):
        return _unknown("The name joins a second verb that is not known.")
    if words[1:2] == ("to",) or any(
        word in ("to", "into") and after in SINKS for word, after in pairwise(words)
    ):
        why = "The name says that what is read is written to a file."
        return Reading(category=Category.WRITE, confidence=0.7, word=lead.word, why=why)
    return _say(lead, 0.93 if lead.firm else 0.85, "begins with a verb")


def _leading_loose(words: tuple[str, ...], found: Verbs, lead: Verb) -> Reading:
    """The first word may be a verb or a noun; a firm verb elsewhere shows that it is a noun."""
    actions = tuple(verb for verb in found[1:] if _acts(verb))
    if actions:
        return _say(_worst(actions), 0.85, "has a verb")
    act = _say(lead, 0.8, "begins with a verb")
    if not _only_things(found[:-1]):
        return act
    last, acts = found[-1], lead.word in ACTS_ON_A_LIST
    reader = next((verb for verb in (last, found[1]) if verb and verb.firm), None) if len(words) > 1 else None
    if reader:
        return _say(reader, 0.75, "has a verb")
    if last and words[-1] in LISTINGS and not acts:
        return _say(last, 0.7, "ends in a verb")
    reports = words[-1] == "status" or (words[-1] in REPORTS and not acts)
    return _readout(words[-1], 0.7) if len(words) == 2 and reports else act


def _only_things(found: Verbs) -> bool:
    """Whether every verb of action here is one that names a thing as well: an order, a build."""
    return all(_reads(verb) or verb.word in NAMES_A_THING for verb in found if verb)


def _nounfirst(words: tuple[str, ...], found: Verbs, kin: Family) -> Reading:
    """A noun leads: the verb is at the end, or somewhere behind the noun, or there is none."""
    last, ending = found[-1], "begins with a noun and ends in a verb"
    actions = tuple(verb for verb in found if _acts(verb))
    nouns = all(verb.word in ENDS_AS_NOUN for verb in actions if verb)
    if last and last.firm and _reads(last) and nouns:
        return _say(last, 0.88, ending)
    if nouns and not _acts(last) and (early := _early(found)):
        return _say(early, 0.8, "has a verb behind its first noun")
    if actions:
        return _say(_worst(actions), 0.88, ending if last is actions[-1] else "has a verb behind its noun")
    if _only_things(found[:-1]):
        if last and _reads(last) and (words[-1] not in LISTLIKE or kin.trailing or _known(words[0], kin)):
            return _say(last, 0.85, ending)
        if reader := _behind(words, found, kin):
            return _say(reader, 0.8, "has a verb behind its noun")
    verbs = tuple(verb for verb in found if verb and not _reads(verb))
    return _loose_or_none(words, verbs, kin)


def _behind(words: tuple[str, ...], found: Verbs, kin: Family) -> Verb | None:
    """The first reading verb behind a noun; a loose one must be sure to be a verb, or its noun to be a noun."""
    reader = next((verb for verb in found[:-1] if verb and _reads(verb)), None)
    if reader is None:
        return None
    sure = reader.firm or reader.word in READS_BEHIND_A_NOUN or _known(words[0], kin)
    return reader if sure or (reader.word == "query" and _known(words[-1], kin)) else None


def _early(found: Verbs) -> Verb | None:
    """A reading verb right behind the first noun: `firecrawl_check_crawl_status`."""
    verb = found[1] if len(found) > 2 else None
    return verb if verb and _reads(verb) and (verb.firm or verb.word in READS_BEHIND_A_NOUN) else None


def _loose_or_none(words: tuple[str, ...], verbs: Verbs, kin: Family) -> Reading:
    """Only words that may be nouns are left: an ending that only reports makes the name a Read."""
    if _reports(words, verbs, kin):
        return _readout(words[-1], 0.7)
    if verbs:
        return _say(_worst(verbs), 0.7, "has a verb behind its noun")
    fused = next((verb for word in words if (verb := _fused(word))), None)
    if fused:
        return _say(fused, 0.6, "contains a verb")
    by = words.index("by") if "by" in words else 0
    if by and _known(words[0], kin) and _known(words[by - 1], kin):
        why = 'The name has no verb and selects with "by".'
        return Reading(category=Category.READ, confidence=0.6, word="by", why=why)
    return _unknown("The name has no word that says what the tool does.")


def _reports(words: tuple[str, ...], verbs: Verbs, kin: Family) -> bool:
    """Whether the last word names something to read, and no word before it may be a verb."""
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    others = {verb.word for verb in verbs if verb and verb.word != last}
    if others:
        return others <= NAMES_A_THING and (
            last == "status" or (not others & ACTS_ON_A_LIST and last in REPORTS)
        )
    if last in READOUTS:
        return True
    return last in STATES and before not in COMPLAINTS and (not before or _known(before, kin))


def _known(word: str, kin: Family) -> bool:
    """Whether a word is surely a noun: by the lexicon, by its plural, or since siblings use it as one."""
    plural = word.endswith("s") and not word.endswith("ss")
    return plural or word in NOUNS or word in kin.nouns or word in kin.prefix or word in kin.namespaces


_FUSIBLE = tuple(verb for verb in VERBS.values() if _acts(verb) and len(verb.word) > 4)


def _fused(word: str) -> Verb | None:
    """The verb of action a single word begins with, or has behind re- or un-: `createorupdate`, `resubmit`."""
    bare = VERBS.get(word[2:]) if word[:2] in ("re", "un", "de") else None
    if _acts(bare):
        return bare
    return next((verb for verb in _FUSIBLE if len(word) > 6 and word.startswith(verb.word)), None)
