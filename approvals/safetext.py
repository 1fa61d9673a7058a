r"""Escapes hidden characters in text from agents and servers (PURE).

Control, format and ignorable characters, unusual spaces, and overlay or enclosing marks can hide, reorder or change the
text that an approver reads. They are shown as `\u{202E}`. Every field on every channel passes through this module.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping

#: General categories (Unicode 15) without a glyph, or that enclose the preceding character.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs", "Me"})
#: Canonical combining class of marks that strike out the preceding character, such as U+0338.
_OVERLAY = 1
_PLAIN = frozenset("\n\t ")
#: Default_Ignorable_Code_Point, and other invisible characters in categories of visible ones.
_RANGES = (
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x2800, 0x2800), (0x2D7F, 0x2D7F), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xFFFC, 0xFFFC), (0x1107F, 0x1107F),
    (0x16FE4, 0x16FE4), (0x1BCA0, 0x1BCA3), (0x1D159, 0x1D159), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
_IGNORABLE = re.compile(f"[{''.join(f'{chr(first)}-{chr(last)}' for first, last in _RANGES)}]")
#: Combining marks in a row that are left alone. Longer stacks can cover the lines above and below.
_STACK = 4
#: Characters read per character shown on a line; runs of white space collapse.
_READ = 8

_ASCII = re.compile(r"[\t\n\x20-\x7e]*")


def escape_hidden(text: str) -> str:
    r"""Replace each hidden character with `\u{...}`; newlines, tabs and spaces stay."""
    return _replace_hidden(text, lambda char: f"\\u{{{ord(char):04X}}}")


def remove_hidden(text: str) -> str:
    """Remove the hidden characters from *text*."""
    return _replace_hidden(text, lambda _: "")


def count_hidden(text: str) -> int:
    """Count the hidden characters in *text*."""
    return len(text) - len(remove_hidden(text))


def _replace_hidden(text: str, written: Callable[[str], str]) -> str:
    """Replace each hidden character by *written*. Each distinct character is examined once, for speed."""
    if _ASCII.fullmatch(text):
        return text
    chars = set(text)
    if marks := "".join(filter(unicodedata.combining, chars)):
        stacked = re.compile(rf"[{marks}]{{{_STACK}}}([{marks}]+)")
        table = _translation(marks, written)
        text = stacked.sub(lambda stack: stack[0][:_STACK] + stack[1].translate(table), text)
    return text.translate(_translation(filter(_is_hidden, chars), written))


def _translation(chars: Iterable[str], written: Callable[[str], str]) -> Mapping[int, str]:
    return {ord(char): written(char) for char in chars}


def _is_hidden(char: str) -> bool:
    if char in _PLAIN:
        return False
    unseen = unicodedata.category(char) in _UNSEEN or _IGNORABLE.match(char) is not None
    return unseen or unicodedata.combining(char) == _OVERLAY


def ascii_name(text: str) -> str:
    """Return a name (tool, server, agent) in ASCII, so that look-alike letters are visible as escapes."""
    return text if text.isascii() and text.isprintable() else json.dumps(text)[1:-1]


def one_line(text: str, limit: int) -> str:
    """Return *text* on one line of at most *limit* characters, with hidden characters escaped.

    Only the beginning is read, so a long text costs no more than a short one.
    """
    line = " ".join(escape_hidden(text[: limit * _READ]).split())
    return line if len(line) <= limit and len(text) <= limit * _READ else line[: limit - 1] + "\u2026"
