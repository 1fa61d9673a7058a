"""Arguments as people see them: indented, every number as it was spelt, secrets taken out and counted (PURE).

The server gets the original; this is for Slack, pages and terminals. What a secret is, is told by the name of the
member that holds it and by its shape.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

REDACTED = "[redacted]"

#: Names of members that hold secrets, compared without case, `-` and `_`.
_NAMES = re.compile(
    r"(password|passwd|passphrase|pwd|secret|apikey|accesskey|secretkey|privatekey|token|credentials?|authorization|cookie|"
    r"sessionid|signature|bearer|clientsecret|pin|otp|cvv|cvc)$"
)
#: Names that end like a secret but hold none.
_HARMLESS = re.compile(
    r"(pagetoken|nexttoken|continuationtoken|maxtokens|progresstoken|accesskeyid|tokencount)$"
)
# Each starts where no other match of it could run through, so that no text takes more than linear time; and with one
# character of a few, which is found much faster than one word of many. One that a text breaks off in is one, too.
_SHAPES = re.compile(
    r"[-ABbegsx](?:"
    r"(?<=A)KIA[0-9A-Z]{16}"  # an AWS access key id
    r"|(?<=A)Iza[0-9A-Za-z_-]{35}"
    r"|(?<=e)(?<![A-Za-z0-9_-]e)yJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*|\Z)"  # a JWT
    r"|(?<=-)----BEGIN [A-Z ]*PRIVATE KEY-----(?:.|\n)*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=g)(?:h[pousr]_[A-Za-z0-9]{20,}|ithub_pat_[A-Za-z0-9_]{20,}|lpat-[A-Za-z0-9_-]{16,})"
    r"|(?<=x)(?:ox[abposr]-[A-Za-z0-9-]{8,}|app-[A-Za-z0-9-]{8,})"
    r"|(?<=s)k(?:_(?:live|test)_[A-Za-z0-9]{16,}|-[A-Za-z0-9_-]{20,})"
    r"|(?<=[Bb])(?i:earer|asic)\s+[A-Za-z0-9._~+/-]{16,}=*"
    r")"
)
#: User and password of a URL.
_URL = re.compile(r"(://)[^\s/:@]+:[^\s/@]+(?=@)")
#: A secret that is assigned inside a text, such as a document packed into a string: `"password": "..."`, `token=...`.
_ASSIGNED = re.compile(
    r"""(?x) ( [AaPpSsTt] (?i:
        (?<=a) (?: pi | ccess ) [_-]?key | (?<=p) (?: assword | asswd | assphrase | rivate[_-]?key )
        | (?<=s) ecret | (?<=t) oken
    ) ["']? \s* [:=] \s* ) (?: "[^"]+ (?:"|\Z) | '[^']+ (?:'|\Z) | [^\s"',;&}\]]+ )"""
)

#: One piece of a JSON text: a bracket, a member's name, a value that has come to its end, a text that breaks off.
_PIECE = re.compile(
    r"""(?xs) (?P<open> [\[{] ) | (?P<close> [\]}] ) | (?P<name> "(?:[^"\\]|\\.)*+" \s* : )
    | (?P<value> (?: "(?:[^"\\]|\\.)*+" | [^\s\[\]{},:"]++ ) (?= \s*[,\]}] ) )
    | (?P<text> " (?:[^"\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|(?:\\u[0-9a-fA-F]{4}){2})*+ )
    | (?P<half> [^\s\[\]{},:"]++ )"""
)
_CLOSERS = {"[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Redacted:
    """Arguments as text, and how many values were taken out of it."""

    text: str
    count: int


class _Number(str):
    """A number as it was spelt."""

    __slots__ = ()


def redact(arguments: bytes, *, flat: bool = False) -> Redacted:
    """Return a JSON object as text without its secrets: indented, or *flat* on one line."""
    value = json.loads(arguments, parse_int=_Number, parse_float=_Number)
    writer = _Writer(flat=flat)
    return Redacted(writer.write(value, ""), writer.count)


def beginning(arguments: bytes, most: int) -> bytes:
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


class _Writer:
    def __init__(self, *, flat: bool) -> None:
        self.count = 0
        self._flat = flat

    def write(self, value: Any, indent: str) -> str:
        match value:
            case dict() if value:
                return self._block(
                    "{",
                    [f"{_text(name)}: {self._member(name, item, indent)}" for name, item in value.items()],
                    indent,
                    "}",
                )
            case list() if value:
                return self._block("[", [self.write(item, indent + "  ") for item in value], indent, "]")
            case _Number():
                return str(value)
            case str():
                return _text(self._without_shapes(value))
            case _:
                return json.dumps(value)

    def _member(self, name: str, item: Any, indent: str) -> str:
        if _is_secret(name) and item not in (None, "", True, False):
            self.count += 1
            return _text(REDACTED)
        return self.write(item, indent + "  ")

    def _without_shapes(self, text: str) -> str:
        clean, addresses = _URL.subn(rf"\1{REDACTED}", text)
        clean, shapes = _SHAPES.subn(REDACTED, clean)
        clean, assigned = _ASSIGNED.subn(rf"\1{REDACTED}", clean)
        self.count += addresses + shapes + assigned
        return clean

    def _block(self, opening: str, lines: list[str], indent: str, closing: str) -> str:
        if self._flat:
            return f"{opening}{', '.join(lines)}{closing}"
        inside = f",\n{indent}  ".join(lines)
        return f"{opening}\n{indent}  {inside}\n{indent}{closing}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _is_secret(name: str) -> bool:
    folded = re.sub(r"[^a-z0-9]", "", name.casefold())
    return bool(_NAMES.search(folded)) and not _HARMLESS.search(folded)
