"""Hidden characters are escaped."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from approvals import safetext
from approvals.safetext import ascii_name, count_hidden, escape_hidden, one_line
from rows import each_row

HIDDEN = [0x00, 0x1B, 0x0D, 0x7F, 0xA0, 0xAD, 0x034F, 0x061C, 0x115F, 0x180E, 0x200B, 0x200E, 0x2028, 0x202E, 0x2066, 0x2069, 0x2800,
          0x3000, 0x3164, 0xFE0F, 0xFEFF, 0xFFA0, 0xE000, 0xE0041, 0xE0100, 0x1D173,
          # invisible symbols, joiners and a filler; overlay and enclosing marks
          0x1D159, 0xFFFC, 0x16FE4, 0x2D7F, 0x1107F, 0x0335, 0x0338, 0x20D2, 0x20DD, 0x20E0, 0x20E3]  # fmt: skip


@each_row("code", HIDDEN)
def test_an_invisible_character_is_escaped(code):
    assert escape_hidden(f"a{chr(code)}b") == f"a\\u{{{code:04X}}}b"
    assert count_hidden(f"a{chr(code)}b{chr(code)}") == 2


@each_row("text", ["plain", "two\nlines\tand a tab", "Grüße, 日本語, здравствуйте", "✅ 👍", "é"])
def test_ordinary_text_is_unchanged(text):
    assert escape_hidden(text) == text
    assert count_hidden(text) == 0


def test_high_stacks_of_marks_are_escaped():
    zalgo = "a" + "\u0301" * 10
    assert count_hidden(zalgo) == 10 - safetext._STACK
    assert escape_hidden(zalgo).startswith("a" + "\u0301" * safetext._STACK + "\\u{0301}")


def one_by_one(text):
    """Yield each character of a text and whether it is hidden, one by one."""
    stacked = 0
    for char in text:
        stacked = stacked + 1 if unicodedata.combining(char) else 0
        yield char, safetext._is_hidden(char) or stacked > safetext._STACK


MARKS = "\u0301\u0323\u20d0\u0338"
MIXED = st.text(
    st.one_of(st.sampled_from(f"a\n {MARKS}{''.join(map(chr, HIDDEN))}"), st.characters()), max_size=40
)


@given(MIXED | st.text(MARKS + "a", max_size=40))
def test_escaping_a_text_equals_escaping_its_characters(text):
    assert escape_hidden(text) == "".join(
        f"\\u{{{ord(char):04X}}}" if is_hidden else char for char, is_hidden in one_by_one(text)
    )
    assert count_hidden(text) == sum(is_hidden for _, is_hidden in one_by_one(text))


def test_look_alike_letters_in_names_are_escaped():
    assert ascii_name("put_user_policy") == "put_user_policy"
    assert ascii_name("delete_us\u0435r") == "delete_us\\u0435r"
    assert ascii_name("a\nb") == "a\\nb"


def test_one_line_collapses_white_space_and_marks_a_cut():
    assert one_line("a\n  b\tc", 20) == "a b c"
    assert one_line("x" * 30, 10) == "x" * 9 + "…"
    assert one_line("a b" + " " * 100, 10) == "a b…"


@given(st.text())
def test_no_hidden_character_is_left(text):
    shown = escape_hidden(text)
    assert count_hidden(shown) == 0 or any(unicodedata.combining(char) for char in shown)
    assert all(char in "\n\t " or unicodedata.category(char) not in safetext._UNSEEN for char in shown)
