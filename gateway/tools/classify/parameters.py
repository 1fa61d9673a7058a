"""Escalates a tool by its parameters: code to run, modes, output files, switches (PURE)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import unquote

from gateway.tools.classify import naming
from gateway.tools.classify.lexicon import RANK, VERBS, Category, Verb, words
from gateway.tools.classify.reading import NameClassification
from gateway.tools.classify.severity import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """A reason to rate a tool higher: the least category and severity, and the evidence."""

    category: Category
    why: str
    severity: Severity = Severity.LOW


# Parameters that carry code, so that the caller decides the effect.
PROGRAMS = words("""
    sql sqlquery sqlstatement sqltext script javascript js jscode cypher gremlin sparql pythoncode python shell shellcommand
    bash cmd statements querysql rawsql rawquery graphqlquery pagefunction
    """)
# Parameters that carry code too, unless a changing tool only stores the value: the code of a locale.
STORED_PROGRAMS = words("code command commands expression program")
# Parameters that may carry a phrase or a filter instead, so the tool's name must suggest code.
MAYBE_PROGRAMS = words("statement function query pipeline input args arguments")
RUNS = words("evaluate interpret")
LANGUAGES = words(
    "sql database db postgres postgresql mysql mssql oracle sqlite graphql cypher gremlin redshift snowflake"
)
MODES = words(
    "action actions operation operations op method mode command verb subcommand tasktype actiontype operationtype"
)
SINKS = words("""
    outputdir outputdirectory outputfolder outputpath outputfile outfile outdir savepath savedir saveto savefile savetofile
    downloadpath downloaddir downloaddirectory destinationpath destpath localpath localfilepath targetdir exportpath
    saveas savefilename savetopath outputfilename outputlocation dumpto dumpfile exportfile exportto destinationfile
    writeto writetofile savelocation outputfilepath destinationdirectory savetodisk
    """)
SWITCHES = words("""
    confirm confirmed confirmation dryrun fix autofix apply delete remove overwrite purge upsert createifmissing markasread
    markread autoapprove executenow validateonly skipconfirmation confirmdelete
    deleteafterread deleteafterreading autoack acknowledge autodelete markseen markasseen persist sendemail notify save
    """)
ADDRESSES = words("url urls")
APPROVALS = words(
    "confirm confirmed confirmation autoapprove skipconfirmation confirmdelete userconfirmed approved"
)
EXAMINES = words(
    "explain validate verify analyze analyse lint parse compare preview estimate check count tokenize translate"
    " convert inspect classify format detect describe"
)
#: Parameters whose name alone escalates a tool: names, category, severity, evidence.
REVEALING = (
    (SINKS, Category.WRITE, Severity.LOW, "names a file to write"),
    (SWITCHES, Category.WRITE, Severity.LOW, "suggests that the tool changes something"),
    (ADDRESSES, Category.READ, Severity.MEDIUM, "lets the agent choose the address to contact"),
    (APPROVALS, Category.READ, Severity.LOW, "is set by the agent and is not an approval"),
)
#: The most parameters, and the most values of one parameter, that are read.
MAX_PARAMETERS = 1_000
_LETTERS = re.compile(r"[^a-z0-9]")
_NEW = re.compile(r"new(?:[_-](?=.)|(?=[A-Z]))")
_QUOTED = re.compile(r"""["'`]([a-z][a-z_-]{2,40})["'`]""")
_INDEX = re.compile(r"[0-9]{1,6}\Z")
_COMBINES = ("anyOf", "oneOf", "allOf")
# Verbs of tools that take an old and a new value, and change neither.
COMPARES = frozenset({"compare", "diff", "contrast", "validate", "verify"})


def declared_parameters(schema: object) -> dict[str, object]:
    """Return the declared parameters by name, at most MAX_PARAMETERS."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return {}
    return {name: spec for name, spec in islice(properties.items(), MAX_PARAMETERS) if isinstance(name, str)}


def find_escalations(
    by_name: NameClassification, parts: tuple[str, ...], schema: object, quoted: Sequence[str]
) -> Iterator[Escalation]:
    """Yield the escalations of an inputSchema.

    *quoted* are the quoted words of the tool's description: the modes of a parameter whose schema lists none.
    """
    examines = by_name.word in EXAMINES
    for name, spec in declared_parameters(schema).items():
        plain = _LETTERS.sub("", name.lower())
        subject = f'Its parameter "{plain}"'
        if _is_program(plain, by_name, parts):
            yield Escalation(category=Category.EXECUTE, why=f"{subject} carries code to run.")
        if plain in MODES and (worst := _worst_mode(spec, schema, by_name, () if examines else quoted)):
            yield Escalation(category=worst.category, why=f'{subject} can select "{worst.word}".')
        if _NEW.match(name) and by_name.word not in COMPARES:
            yield Escalation(category=Category.WRITE, why=f"{subject} holds a new value.")
        for names, category, harm, predicate in REVEALING:
            if plain in names and not (examines and names is SWITCHES):
                yield Escalation(category=category, severity=harm, why=f"{subject} {predicate}.")


def _is_program(plain: str, by_name: NameClassification, parts: tuple[str, ...]) -> bool:
    """Return whether a parameter carries code that the tool runs."""
    if plain in PROGRAMS:
        return by_name.word not in EXAMINES
    if plain in STORED_PROGRAMS:
        return by_name.word not in EXAMINES and by_name.category in (Category.READ, Category.OTHER)
    queries_language = by_name.word == "query" and any(part in LANGUAGES for part in parts)
    return plain in MAYBE_PROGRAMS and (
        queries_language or by_name.word in RUNS or by_name.category is Category.OTHER
    )


def find_quoted(text: str) -> tuple[str, ...]:
    """Return the quoted words of a text, often the values of a mode: `"delete"`."""
    return tuple(_QUOTED.findall(text))


def _worst_mode(
    spec: object, schema: object, by_name: NameClassification, quoted: Sequence[str]
) -> Verb | None:
    """Return the strictest verb among a parameter's listed values, or else among the quoted words."""
    listed = [value for value in islice(_listed_values(spec, schema), MAX_PARAMETERS) if value is not None]
    found = [verb for value in listed for verb in _changing_verbs(value)]
    if not listed:
        text = spec.get("description") if isinstance(spec, Mapping) else None
        described = find_quoted(text[:MAX_PARAMETERS]) if isinstance(text, str) else ()
        found = [
            verb
            for value in (*quoted, *described)
            for verb in islice(_changing_verbs(value), 1)
            if _is_conclusive(verb, by_name)
        ]
    return max(found, key=lambda verb: RANK[verb.category], default=None)


def _is_conclusive(verb: Verb, by_name: NameClassification) -> bool:
    """Return whether a quoted verb is evidence. Prose is weaker evidence than a schema.

    So a loose verb is ignored, and for a tool known to change something, only a destructive verb matters.
    """
    if verb.category is Category.DESTRUCTIVE:
        return True
    return verb.firm and by_name.category in (Category.READ, Category.OTHER)


def _changing_verbs(value: object) -> Iterator[Verb]:
    for word in naming.split_words(value if isinstance(value, str) else "")[:2]:
        verb = VERBS.get(word)
        if verb and verb.category is not Category.READ:
            yield verb


def _listed_values(spec: object, schema: object) -> Iterator[object]:
    """Yield the values that a parameter's schema and its subschemas list."""
    for part in _subschemas(spec, schema):
        yield from _list(part.get("enum"))
        yield part.get("const")


def _subschemas(spec: object, schema: object) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and its subschemas, following references into *schema*; at most MAX_PARAMETERS."""
    queue, seen = deque([spec]), set[int]()
    while queue and len(seen) < MAX_PARAMETERS:
        part = queue.popleft()
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        queue += [part.get("items"), _resolve(part.get("$ref"), schema)]
        queue += [inner for key in _COMBINES for inner in _list(part.get(key))]


def _resolve(reference: object, schema: object) -> object:
    """Resolve a local reference (`#/$defs/Mode`) in *schema*; None for any other, which is never fetched."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found = schema
    for step in unquote(reference).split("/")[1:]:
        if isinstance(found, Mapping):
            found = found.get(step.replace("~1", "/").replace("~0", "~"))
        elif isinstance(found, list) and _INDEX.match(step):
            found = found[int(step)] if int(step) < len(found) else None
        else:
            return None
    return found


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
