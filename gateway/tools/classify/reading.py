"""Classifies a tool by its name: finds the deciding verb and the evidence (PURE).

The verb comes first (`create_user`) or last (`policy_generation_start`). An ambiguous name takes the stricter
category. A name without a known verb is a Read only if it ends with a noun that is only read.
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
from gateway.tools.classify.naming import NAME_LIMIT, SiblingNames, core_words, split_words

Verbs = Sequence[Verb | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NameClassification:
    """The category of a name, the confidence (0 to 1), the deciding word, and the evidence as a sentence."""

    category: Category
    confidence: float
    word: str
    why: str


def classify_name(name: str, siblings: SiblingNames) -> NameClassification:
    """Classify a tool by its name alone; *siblings* are the analyzed names of the server's tools."""
    words = core_words(name, siblings)
    if not words or not name.isascii() or len(name) > NAME_LIMIT:
        return _as_other(
            "The name has unsupported characters or is too long." if name else "The tool has no name."
        )
    if len(words) == 1 and words[0] in REPORTS and siblings.prefix and siblings.prefix[-1] in NOUNS:
        # `git_log` among `git_add` and `git_show`: the shared prefix is the noun.
        return _apply_idiom(_as_read(words[0], 0.7), split_words(name))
    found = tuple(_verb_at(words, at, siblings) for at in range(len(words)))
    reading = (
        _classify_verb_first(words, found, found[0])
        if found[0]
        else _classify_noun_first(words, found, siblings)
    )
    return _apply_idiom(_stricter(_classify_joined(words, found), reading), split_words(name))


def _verb_at(words: tuple[str, ...], at: int, siblings: SiblingNames) -> Verb | None:
    """Return the verb at an index, unless its neighbours show that the word is a noun there."""
    verb = VERBS.get(words[at])
    if verb is None:
        return None
    before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
    if (verb.word, after) == ("pull", "request") or (before, verb.word) == ("pull", "request"):
        return None
    if at == 0:
        noun = not verb.firm and (_is_read(verb) or verb.word in NAMES_A_THING)
        space = words[0] in siblings.namespaces or (siblings.verb_last and noun and words[-1] in VERBS)
        return None if space and after else verb
    if verb.word in ("set", "update", "request") and before in SET_NOUNS:
        return None
    return verb if verb.firm or before not in PREPOSITIONS else None


def _classify_joined(words: tuple[str, ...], found: Verbs) -> NameClassification | None:
    """Classify two verbs joined by and/or: `get_or_create` creates, `backup_and_verify` backs up."""
    verbs: list[Verb | None] = []
    for at in range(1, len(words) - 1):
        if words[at] in JOINS and found[at + 1]:
            verbs += (found[at + 1], found[at - 1], found[0])
    return _from_verb(_worst(verbs), 0.85, "joins two verbs, the stricter being") if verbs else None


def _stricter(first: NameClassification | None, second: NameClassification) -> NameClassification:
    return first if first and RANK[first.category] > RANK[second.category] else second


def _apply_idiom(reading: NameClassification, words: tuple[str, ...]) -> NameClassification:
    """Reclassify by the verb and its object, if an idiom matches."""
    for idiom in IDIOMS:
        if reading.word not in idiom.verbs:
            continue
        if objects := idiom.objects.intersection(words) - {reading.word}:
            why = f'The name combines "{reading.word}" with "{min(objects)}", which {idiom.meaning}.'
            return NameClassification(category=idiom.category, confidence=0.85, word=reading.word, why=why)
    return reading


def _is_read(verb: Verb) -> bool:
    return verb.category is Category.READ


def _is_action(verb: Verb | None) -> bool:
    return verb is not None and verb.firm and not _is_read(verb)


def _worst(verbs: Verbs) -> Verb:
    return max((verb for verb in verbs if verb), key=lambda verb: RANK[verb.category])


def _from_verb(verb: Verb, confidence: float, predicate: str) -> NameClassification:
    why = f'The name {predicate} "{verb.word}", which {verb.meaning}.'
    return NameClassification(category=verb.category, confidence=confidence, word=verb.word, why=why)


def _as_other(why: str) -> NameClassification:
    return NameClassification(category=Category.OTHER, confidence=0.2, word="", why=why)


def _as_read(word: str, confidence: float) -> NameClassification:
    why = f'The name has no action verb and ends with "{word}", which names data to read.'
    return NameClassification(category=Category.READ, confidence=confidence, word=word, why=why)


def _classify_verb_first(words: tuple[str, ...], found: Verbs, lead: Verb) -> NameClassification:
    if _is_read(lead):
        return _classify_read_first(words, found, lead)
    if not lead.firm:
        return _classify_loose_first(words, found, lead)
    leading = _from_verb(lead, 0.93, "begins with the verb")
    late = _is_action(found[-1]) and words[-1] not in ENDS_AS_NOUN
    return _stricter(_from_verb(_worst(found[-1:]), 0.8, "ends with the verb"), leading) if late else leading


def _classify_read_first(words: tuple[str, ...], found: Verbs, lead: Verb) -> NameClassification:
    """Classify a name that begins with a reading verb; an action verb may overrule it.

    The action verb stands at the end, or right after a loose reading verb.
    """
    ends = _is_action(found[-1]) and words[-1] not in ENDS_AS_NOUN
    if ends or (not lead.firm and len(words) > 1 and found[-1] and words[-1] in ENDS_AS_VERB):
        return _from_verb(_worst(found[-1:]), 0.7, "ends with the verb")
    if not lead.firm and len(words) > 2 and _is_action(found[1]) and words[1] not in ENDS_AS_NOUN:
        return _from_verb(_worst(found[1:2]), 0.7, f'has "{lead.word}" followed by the verb')
    if words[1:2] in (("and",), ("or",), ("then",)):
        return _as_other("The name joins a second, unknown verb.")
    if words[1:2] == ("to",) or any(
        word in ("to", "into") and after in SINKS for word, after in pairwise(words)
    ):
        why = "The name says that the result is written to a file."
        return NameClassification(category=Category.WRITE, confidence=0.7, word=lead.word, why=why)
    return _from_verb(lead, 0.93 if lead.firm else 0.85, "begins with the verb")


def _classify_loose_first(words: tuple[str, ...], found: Verbs, lead: Verb) -> NameClassification:
    """Classify a name whose first word may be a verb or a noun; a firm verb elsewhere makes it a noun."""
    actions = tuple(verb for verb in found[1:] if _is_action(verb))
    if actions:
        return _from_verb(_worst(actions), 0.85, "contains the verb")
    act = _from_verb(lead, 0.8, "begins with the verb")
    if not _all_name_things(found[:-1]):
        return act
    last, acts = found[-1], lead.word in ACTS_ON_A_LIST
    reader = next((verb for verb in (last, found[1]) if verb and verb.firm), None) if len(words) > 1 else None
    if reader:
        return _from_verb(reader, 0.75, "contains the verb")
    if last and words[-1] in LISTINGS and not acts:
        return _from_verb(last, 0.7, "ends with the verb")
    reports = words[-1] == "status" or (words[-1] in REPORTS and not acts)
    return _as_read(words[-1], 0.7) if len(words) == 2 and reports else act


def _all_name_things(found: Verbs) -> bool:
    """Return whether each action verb here may also be a noun: an order, a build."""
    return all(_is_read(verb) or verb.word in NAMES_A_THING for verb in found if verb)


def _classify_noun_first(words: tuple[str, ...], found: Verbs, siblings: SiblingNames) -> NameClassification:
    """Classify a name that begins with a noun; the verb is at the end, in between, or missing."""
    last, ending = found[-1], "begins with a noun and ends with the verb"
    actions = tuple(verb for verb in found if _is_action(verb))
    nouns = all(verb.word in ENDS_AS_NOUN for verb in actions if verb)
    if last and last.firm and _is_read(last) and nouns:
        return _from_verb(last, 0.88, ending)
    if nouns and not _is_action(last) and (early := _find_early_read(found)):
        return _from_verb(early, 0.8, "has a noun followed by the verb")
    if actions:
        return _from_verb(
            _worst(actions), 0.88, ending if last is actions[-1] else "has a noun followed by the verb"
        )
    if _all_name_things(found[:-1]):
        if (
            last
            and _is_read(last)
            and (words[-1] not in LISTLIKE or siblings.verb_last or _is_noun(words[0], siblings))
        ):
            return _from_verb(last, 0.85, ending)
        if reader := _find_read_after_noun(words, found, siblings):
            return _from_verb(reader, 0.8, "has a noun followed by the verb")
    verbs = tuple(verb for verb in found if verb and not _is_read(verb))
    return _classify_unclear(words, verbs, siblings)


def _find_read_after_noun(words: tuple[str, ...], found: Verbs, siblings: SiblingNames) -> Verb | None:
    """Find the first reading verb after a noun; a loose verb needs more evidence."""
    reader = next((verb for verb in found[:-1] if verb and _is_read(verb)), None)
    if reader is None:
        return None
    sure = reader.firm or reader.word in READS_BEHIND_A_NOUN or _is_noun(words[0], siblings)
    return reader if sure or (reader.word == "query" and _is_noun(words[-1], siblings)) else None


def _find_early_read(found: Verbs) -> Verb | None:
    """Find a reading verb right after the first noun: `firecrawl_check_crawl_status`."""
    verb = found[1] if len(found) > 2 else None
    return verb if verb and _is_read(verb) and (verb.firm or verb.word in READS_BEHIND_A_NOUN) else None


def _classify_unclear(words: tuple[str, ...], verbs: Verbs, siblings: SiblingNames) -> NameClassification:
    """Classify a name without a clear verb; it is a Read if it ends with a noun that is only read."""
    if _is_readout(words, verbs, siblings):
        return _as_read(words[-1], 0.7)
    if verbs:
        return _from_verb(_worst(verbs), 0.7, "has a noun followed by the verb")
    fused = next((verb for word in words if (verb := _find_fused(word))), None)
    if fused:
        return _from_verb(fused, 0.6, "contains the verb")
    by = words.index("by") if "by" in words else 0
    if by and _is_noun(words[0], siblings) and _is_noun(words[by - 1], siblings):
        why = 'The name has no verb and selects with "by".'
        return NameClassification(category=Category.READ, confidence=0.6, word="by", why=why)
    return _as_other("No word in the name says what the tool does.")


def _is_readout(words: tuple[str, ...], verbs: Verbs, siblings: SiblingNames) -> bool:
    """Return whether the last word names data to read, and no earlier word may be a verb."""
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    others = {verb.word for verb in verbs if verb and verb.word != last}
    if others:
        return others <= NAMES_A_THING and (
            last == "status" or (not others & ACTS_ON_A_LIST and last in REPORTS)
        )
    if last in READOUTS:
        return True
    return last in STATES and before not in COMPLAINTS and (not before or _is_noun(before, siblings))


def _is_noun(word: str, siblings: SiblingNames) -> bool:
    """Return whether a word is a noun: by the lexicon, by its plural, or because siblings use it as one."""
    plural = word.endswith("s") and not word.endswith("ss")
    return (
        plural
        or word in NOUNS
        or word in siblings.nouns
        or word in siblings.prefix
        or word in siblings.namespaces
    )


_FUSIBLE = tuple(verb for verb in VERBS.values() if _is_action(verb) and len(verb.word) > 4)


def _find_fused(word: str) -> Verb | None:
    """Find an action verb at the start of a word, or after re-, un-, de-: `createorupdate`, `resubmit`."""
    bare = VERBS.get(word[2:]) if word[:2] in ("re", "un", "de") else None
    if _is_action(bare):
        return bare
    return next((verb for verb in _FUSIBLE if len(word) > 6 and word.startswith(verb.word)), None)
