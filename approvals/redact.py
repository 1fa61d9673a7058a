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
# Each starts where no other match of it could run through, so that no text takes more than linear time.
_SHAPES = re.compile(
    r"AKIA[0-9A-Z]{16}"  # an AWS access key id
    r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # a JWT
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.|\n)*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abposr]-[A-Za-z0-9-]{8,}|xapp-[A-Za-z0-9-]{8,}"
    r"|sk_(?:live|test)_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}"
    r"|AIza[0-9A-Za-z_-]{35}"
    r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/-]{16,}=*"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"  # user and password of a URL
)

#: A secret that is assigned inside a text, such as a document packed into a string: `"password": "..."`, `token=...`.
_ASSIGNED = re.compile(
    r"""(?ix) ( (?<![\w-]) [\w-]{0,40}? (?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key|token) ["']?
    \s* [:=] \s* ) (?: "[^"]+" | '[^']+' | [^\s"',;&}\]]+ )"""
)


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
        clean, shapes = _SHAPES.subn(REDACTED, text)
        clean, assigned = _ASSIGNED.subn(rf"\1{REDACTED}", clean)
        self.count += shapes + assigned
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
