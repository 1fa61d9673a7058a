r"""Text from agents and servers, made safe to look at: what cannot be seen is written out (PURE).

Control, format and ignorable characters, and spaces that are none, can hide or reorder what an approver reads. They are
shown as `\u{202E}`. This is the one place where that happens, for every field on every channel.
"""

import json
import re
import unicodedata

#: Categories of characters that have no look of their own (Unicode 15, general category).
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
_PLAIN = frozenset("\n\t ")
#: Default_Ignorable_Code_Point and look-alikes of a space that their category does not give away.
_IGNORABLE = (
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x2800, 0x2800), (0x3164, 0x3164), (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
#: More combining marks than this in a row are written out: they can cover what stands above and below.
_STACK = 4

_ASCII = re.compile(r"[\t\n\x20-\x7e]*")


def _is_hidden(char: str) -> bool:
    if char in _PLAIN:
        return False
    code = ord(char)
    return unicodedata.category(char) in _UNSEEN or any(first <= code <= last for first, last in _IGNORABLE)


def _pieces(text: str) -> list[tuple[str, bool]]:
    """Return each character, and whether it has to be written out."""
    pieces, stacked = [], 0
    for char in text:
        stacked = stacked + 1 if unicodedata.combining(char) else 0
        pieces.append((char, _is_hidden(char) or stacked > _STACK))
    return pieces


def visible(text: str) -> str:
    r"""Return *text* with each hidden character written as `\u{...}`; new lines, tabs and spaces stay."""
    if _ASCII.fullmatch(text):
        return text
    return "".join(f"\\u{{{ord(char):04X}}}" if hidden else char for char, hidden in _pieces(text))


def hidden(text: str) -> int:
    """Count the hidden characters in *text*."""
    return 0 if _ASCII.fullmatch(text) else sum(hidden for _, hidden in _pieces(text))


def name(text: str) -> str:
    """Return a name (tool, server, agent) in ASCII, so that letters that only look alike show as what they are."""
    return text if text.isascii() and text.isprintable() else json.dumps(text)[1:-1]


def one_line(text: str, limit: int) -> str:
    """Return *text* on one line of at most *limit* characters, hidden characters written out."""
    line = " ".join(visible(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "\u2026"
