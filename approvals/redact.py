"""Arguments as people see them: indented, every number as it was spelt, secrets taken out and counted (PURE).

The server gets the original; this is for Slack, pages and terminals. What a secret is, is told by the name of the
member that holds it and by its shape. An agent chooses both, so only words are ever hidden: the members of a value, the
blanks between its words, and whatever a shell would act on stay in sight.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

REDACTED = "[redacted]"

#: Names of members that hold secrets, or several, compared without case, `-` and `_`. Of `tokens` alone there may be a number.
_NAMES = re.compile(
    r"((password|passwd|passphrase|pwd|secret|apikey|accesskey|secretkey|privatekey|credential|authorization|cookie|"
    r"sessionid|signature|bearer|otp|cvv|cvc|(access|api|auth|refresh|session|id|bearer)token)s?|token|pin)"
    r"(value|string|binary|text)?$"
)
#: Names that end like a secret but hold none.
_HARMLESS = re.compile(
    r"(pagetoken|nexttoken|continuationtoken|maxtokens|progresstoken|accesskeyid|tokencount)$"
)
#: A word that may be a secret. No blank, quote, or character that a shell acts on is ever in one.
_WORD = r"[\w.~+/=@%:-]+"
#: A private key from its first line to its last, or to where the text breaks off; between them are lines of base64, in packed text behind `\n`.
_LINE = r"(?:\r?\n|\\n)"
_KEY = rf"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:{_LINE}[A-Za-z0-9+/=]+)+(?:{_LINE}-----END [A-Z ]*PRIVATE KEY-----|{_LINE}?-*\Z)"
# Each starts where no other match of it could run through, so that no text takes more than linear time.
_SHAPES = re.compile(
    r"AKIA[0-9A-Z]{16}"  # an AWS access key id
    r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"  # a JWT
    rf"|{_KEY}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abposr]-[A-Za-z0-9-]{8,}|xapp-[A-Za-z0-9-]{8,}"
    r"|sk_(?:live|test)_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}"
    r"|AIza[0-9A-Za-z_-]{35}"
    r"|(?<=://)[\w.~+=%-]+:[\w.~+=%:-]+(?=@)"  # user and password of a URL
)
#: Every shape has one of these. To look for them costs a tenth of looking for the shapes.
_SHAPE_MARKS = (
    "AKIA", "eyJ", "PRIVATE KEY", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-",
    "sk_", "sk-", "AIza", "://",
)  # fmt: skip
#: A secret whose name stands before it in a text, such as a document packed into a string: `"password": "..."`, `token=...`.
_ASSIGNED = re.compile(
    rf"""(?ix) ( (?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key|token)
    ["']? \s* [:=] \s* ["']? ) {_WORD} | ( (?:bearer|basic) \s+ ) [A-Za-z0-9._~+/-]{{16,}}=*"""
)
#: Every assignment has one of these, in lower case.
_ASSIGNED_MARKS = ("passw", "passphrase", "secret", "key", "token", "bearer", "basic")
#: In a member that is named like a secret every word is one.
_ALL = re.compile(f"{_KEY}|{_WORD}")


#: One piece of a JSON text: a bracket, a member's name, a value that has come to its end, a text that breaks off.
_PIECE = re.compile(
    r"""(?xs) (?P<open> [\[{] ) | (?P<close> [\]}] ) | (?P<name> "(?:[^"\\]|\\.)*+" \s* : )
    | (?P<value> (?: "(?:[^"\\]|\\.)*+" | [^\s\[\]{},:"]++ ) (?= \s*[,\]}] ) )
    | (?P<text> " (?:[^"\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|(?:\\u[0-9a-fA-F]{4}){2})*+ )
    | (?P<half> [^\s\[\]{},:"]++ )"""
)
_CLOSERS = {"[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class RedactedText:
    """Arguments as text, and how many values were taken out of it."""

    text: str
    count: int


class _NumberText(str):
    """A number as it was spelt."""

    __slots__ = ()


def redact(arguments: bytes, *, flat: bool = False, ids: bool = False) -> RedactedText:
    """Return a JSON object as text without its secrets: indented, or *flat* on one line.

    With *ids* a session id is none: the object is a client's bookkeeping, whose sessions are its own.
    """
    value = json.loads(arguments, parse_int=_NumberText, parse_float=_NumberText)
    writer = _Redactor(flat=flat, ids=ids)
    return RedactedText(writer.write(value, ""), writer.count)


def truncate_json(arguments: bytes, most: int) -> bytes:
    """Return at most the first *most* bytes of a JSON object or list, closed where they break off.

    A text is cut; a number, a name or a literal is left out, since half of one says something else.
    """
    if len(arguments) <= most:
        return arguments
    text = arguments[:most].decode("utf-8", "ignore")
    closers, end, last = "", 0, ""
    for piece in _PIECE.finditer(text):
        match piece.lastgroup:
            case "open":
                closers, end = _CLOSERS[piece[0]] + closers, piece.end()
            case "close":
                closers, end = closers[1:], piece.end()
            case "value":
                end = piece.end()
            case "text" if last == "name" or closers.startswith("]"):
                return f'{text[: piece.end()]}"{closers}'.encode()
        last = piece.lastgroup or ""
    return f"{text[:end]}{closers}".encode()


def redact_text(text: str) -> str:
    """Return *text* without the words that have a secret's shape, or stand behind a secret's name."""
    return _Redactor(flat=True, ids=False).without_shapes(text)


class _Redactor:
    def __init__(self, *, flat: bool, ids: bool) -> None:
        self.count = 0
        self._flat = flat
        self._ids = ids

    def write(self, value: Any, indent: str, *, secret: bool = False) -> str:
        match value:
            case dict() if value:
                return self._block(
                    "{",
                    [
                        f"{_text(name)}: {self.write(item, indent + '  ', secret=secret or self._is_secret(name))}"
                        for name, item in value.items()
                    ],
                    indent,
                    "}",
                )
            case list() if value:
                return self._block(
                    "[", [self.write(item, indent + "  ", secret=secret) for item in value], indent, "]"
                )
            case _NumberText():
                return _text(self._without_words(value)) if secret else str(value)
            case str():
                return _text(self._without_words(value) if secret else self.without_shapes(value))
            case _:
                return json.dumps(value)

    def _is_secret(self, name: str) -> bool:
        return is_secret_name(name) and not (self._ids and _folded(name) == "sessionid")

    def _without_words(self, text: str) -> str:
        """Return a secret without its words. It counts as one, however many it has."""
        clean, words = _ALL.subn(REDACTED, text)
        self.count += bool(words)
        return clean

    def without_shapes(self, text: str) -> str:
        shapes = assigned = 0
        if _may_have(text, _SHAPE_MARKS):
            text, shapes = _SHAPES.subn(REDACTED, text)
        if _may_have(text.lower(), _ASSIGNED_MARKS):
            text, assigned = _ASSIGNED.subn(_unassigned, text)
        self.count += shapes + assigned
        return text

    def _block(self, opening: str, lines: list[str], indent: str, closing: str) -> str:
        if self._flat:
            return f"{opening}{', '.join(lines)}{closing}"
        inside = f",\n{indent}  ".join(lines)
        return f"{opening}\n{indent}  {inside}\n{indent}{closing}"


def _may_have(text: str, marks: Iterable[str]) -> bool:
    """Say whether *text* may hold a secret. Of letters beyond ASCII some count as `i`, `k` or `s` in any case."""
    return not text.isascii() or any(mark in text for mark in marks)


def _unassigned(found: re.Match[str]) -> str:
    return f"{found[1] or found[2]}{REDACTED}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def is_secret_name(name: str) -> bool:
    """Say whether a member, header or variable of this name holds a secret."""
    folded = _folded(name)
    return bool(_NAMES.search(folded)) and not _HARMLESS.search(folded)


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
