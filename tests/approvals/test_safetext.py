"""Hidden characters are seen, wherever they come from."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from approvals import safetext
from approvals.safetext import ascii_name, count_hidden, escape_hidden, one_line
from rows import each_row

HIDDEN = [0x00, 0x1B, 0x0D, 0x7F, 0xA0, 0xAD, 0x034F, 0x061C, 0x115F, 0x180E, 0x200B, 0x200E, 0x2028, 0x202E, 0x2066, 0x2069, 0x2800,
          0x3000, 0x3164, 0xFE0F, 0xFEFF, 0xFFA0, 0xE000, 0xE0041, 0xE0100, 0x1D173,
          # symbols, joiners and a filler that draw nothing; marks that strike out or enclose the character before them
          0x1D159, 0xFFFC, 0x16FE4, 0x2D7F, 0x1107F, 0x0335, 0x0338, 0x20D2, 0x20DD, 0x20E0, 0x20E3]  # fmt: skip


@each_row("code", HIDDEN)
def test_a_character_without_a_look_of_its_own_is_written_out(code):
    assert escape_hidden(f"a{chr(code)}b") == f"a\\u{{{code:04X}}}b"
    assert count_hidden(f"a{chr(code)}b{chr(code)}") == 2


@each_row("text", ["plain", "two\nlines\tand a tab", "Grüße, 日本語, здравствуйте", "✅ 👍", "é"])
def test_what_people_write_stays_as_it_is(text):
    assert escape_hidden(text) == text
    assert count_hidden(text) == 0


def test_marks_stacked_high_are_written_out():
    zalgo = "a" + "\u0301" * 10
    assert count_hidden(zalgo) == 10 - safetext._STACK
    assert escape_hidden(zalgo).startswith("a" + "\u0301" * safetext._STACK + "\\u{0301}")


def one_by_one(text):
    """Return each character of a text and whether it is hidden, found out by looking at one after the other."""
    stacked = 0
    for char in text:
        stacked = stacked + 1 if unicodedata.combining(char) else 0
        yield char, safetext._is_hidden(char) or stacked > safetext._STACK


MARKS = "\u0301\u0323\u20d0\u0338"
MIXED = st.text(
    st.one_of(st.sampled_from(f"a\n {MARKS}{''.join(map(chr, HIDDEN))}"), st.characters()), max_size=40
)


@given(MIXED | st.text(MARKS + "a", max_size=40))
def test_a_text_shows_as_its_characters_do_one_by_one(text):
    assert escape_hidden(text) == "".join(
        f"\\u{{{ord(char):04X}}}" if is_hidden else char for char, is_hidden in one_by_one(text)
    )
    assert count_hidden(text) == sum(is_hidden for _, is_hidden in one_by_one(text))


def test_names_show_their_letters_as_what_they_are():
    assert ascii_name("put_user_policy") == "put_user_policy"
    assert ascii_name("delete_us\u0435r") == "delete_us\\u0435r"
    assert ascii_name("a\nb") == "a\\nb"


def test_a_line_is_one_line_and_says_that_it_was_cut():
    assert one_line("a\n  b\tc", 20) == "a b c"
    assert one_line("x" * 30, 10) == "x" * 9 + "…"
    assert one_line("a b" + " " * 100, 10) == "a b…"


@given(st.text())
def test_nothing_hidden_is_left(text):
    shown = escape_hidden(text)
    assert count_hidden(shown) == 0 or any(unicodedata.combining(char) for char in shown)
    assert all(char in "\n\t " or unicodedata.category(char) not in safetext._UNSEEN for char in shown)
