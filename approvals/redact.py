"""Formats JSON for people: indented, numbers as written, secrets replaced and counted (PURE).

For Slack, pages and terminals; the server gets the original. A secret is recognized by the name of its member or by its
shape. The agent chooses both, so only words are hidden: member names, blanks between words, and characters that a shell
acts on stay visible.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

REDACTED = "[redacted]"

#: Names of members that hold secrets, compared without case, `-` and `_`. Plain `tokens` is usually a count.
_NAMES = re.compile(
    r"((password|passwd|passphrase|pwd|secret|apikey|accesskey|secretkey|privatekey|credential|authorization|cookie|"
    r"sessionid|signature|bearer|otp|cvv|cvc|(access|api|auth|refresh|session|id|bearer)token)s?|token|pin)"
    r"(value|string|binary|text)?$"
)
#: Exceptions: names that end like a secret's name.
_HARMLESS = re.compile(
    r"(pagetoken|nexttoken|continuationtoken|maxtokens|progresstoken|accesskeyid|tokencount)$"
)
#: A word that may be a secret: without blanks, quotes, and characters that a shell acts on.
_WORD = r"[\w.~+/=@%:-]+"
#: A PEM private key up to its last line or the end of the text; lines end with a newline, or `\n` in packed JSON.
_LINE = r"(?:\r?\n|\\n)"
_KEY = rf"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:{_LINE}[A-Za-z0-9+/=]+)+(?:{_LINE}-----END [A-Z ]*PRIVATE KEY-----|{_LINE}?-*\Z)"
# No match can start inside another match of the same alternative, so the search takes linear time.
_SHAPES = re.compile(
    r"AKIA[0-9A-Z]{16}"  # an AWS access key id
    r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"  # a JWT
    rf"|{_KEY}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abposr]-[A-Za-z0-9-]{8,}|xapp-[A-Za-z0-9-]{8,}"
    r"|sk_(?:live|test)_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}"
    r"|AIza[0-9A-Za-z_-]{35}"
    r"|(?<=://)[\w.~+=%-]+:[\w.~+=%:-]+(?=@)"  # user and password in a URL
)
#: Each shape contains one of these. Searching for them costs a tenth of matching the shapes.
_SHAPE_MARKS = (
    "AKIA", "eyJ", "PRIVATE KEY", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-",
    "sk_", "sk-", "AIza", "://",
)  # fmt: skip
#: A secret after its name inside a string: `"password": "..."`, `token=...`.
_ASSIGNED = re.compile(
    rf"""(?ix) ( (?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key|token)
    ["']? \s* [:=] \s* ["']? ) {_WORD} | ( (?:bearer|basic) \s+ ) [A-Za-z0-9._~+/-]{{16,}}=*"""
)
#: Each assignment contains one of these, in lower case.
_ASSIGNED_MARKS = ("passw", "passphrase", "secret", "key", "token", "bearer", "basic")
#: In a member named like a secret, every word is hidden.
_ALL = re.compile(f"{_KEY}|{_WORD}")


#: A JSON token: a bracket, a member name, a complete value, or a truncated string or other value.
_PIECE = re.compile(
    r"""(?xs) (?P<open> [\[{] ) | (?P<close> [\]}] ) | (?P<name> "(?:[^"\\]|\\.)*+" \s* : )
    | (?P<value> (?: "(?:[^"\\]|\\.)*+" | [^\s\[\]{},:"]++ ) (?= \s*[,\]}] ) )
    | (?P<text> " (?:[^"\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|(?:\\u[0-9a-fA-F]{4}){2})*+ )
    | (?P<half> [^\s\[\]{},:"]++ )"""
)
_CLOSERS = {"[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class RedactedText:
    """JSON as text, and the number of values hidden in it."""

    text: str
    count: int


class _NumberText(str):
    """A number as it was written."""

    __slots__ = ()


def redact(arguments: bytes, *, flat: bool = False, ids: bool = False) -> RedactedText:
    """Format a JSON object without its secrets: indented, or *flat* on one line.

    With *ids*, session ids stay visible: in a client's own metadata they are not credentials.
    """
    value = json.loads(arguments, parse_int=_NumberText, parse_float=_NumberText)
    writer = _Redactor(flat=flat, ids=ids)
    return RedactedText(writer.write(value, ""), writer.count)


def truncate_json(arguments: bytes, most: int) -> bytes:
    """Truncate a JSON object or list to about *most* bytes and close it, so that it parses.

    A string is cut. An incomplete number, name or literal is dropped, because half of it would mean something else.
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
    """Replace the words of *text* that have a secret's shape or follow a secret's name."""
    return _Redactor(flat=True, ids=False).redact_string(text)


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
                        f"{_quote(name)}: {self.write(item, indent + '  ', secret=secret or self._is_secret(name))}"
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
                return _quote(self._hide_words(value)) if secret else str(value)
            case str():
                return _quote(self._hide_words(value) if secret else self.redact_string(value))
            case _:
                return json.dumps(value)

    def _is_secret(self, name: str) -> bool:
        return is_secret_name(name) and not (self._ids and _fold(name) == "sessionid")

    def _hide_words(self, text: str) -> str:
        """Hide every word of a secret. The secret adds one to the count."""
        clean, words = _ALL.subn(REDACTED, text)
        self.count += bool(words)
        return clean

    def redact_string(self, text: str) -> str:
        shapes = assigned = 0
        if _may_have(text, _SHAPE_MARKS):
            text, shapes = _SHAPES.subn(REDACTED, text)
        if _may_have(text.lower(), _ASSIGNED_MARKS):
            text, assigned = _ASSIGNED.subn(_hide_assigned, text)
        self.count += shapes + assigned
        return text

    def _block(self, opening: str, lines: list[str], indent: str, closing: str) -> str:
        if self._flat:
            return f"{opening}{', '.join(lines)}{closing}"
        inside = f",\n{indent}  ".join(lines)
        return f"{opening}\n{indent}  {inside}\n{indent}{closing}"


def _may_have(text: str, marks: Iterable[str]) -> bool:
    """Return whether *text* may hold a secret. Some non-ASCII letters match `i`, `k` or `s` when case is ignored."""
    return not text.isascii() or any(mark in text for mark in marks)


def _hide_assigned(found: re.Match[str]) -> str:
    return f"{found[1] or found[2]}{REDACTED}"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def is_secret_name(name: str) -> bool:
    """Return whether a member, header or variable of this name holds a secret."""
    folded = _fold(name)
    return bool(_NAMES.search(folded)) and not _HARMLESS.search(folded)


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
