"""A table test fails if one of its rows does, and names that row."""

import pytest

from rows import each_row


@each_row("number", [1, 2, 3, 4])
def _is_odd(number):
    assert number % 2


@each_row(("text", "error"), [("x", ValueError), ("1", ValueError)])
def _is_refused(text, error):
    with pytest.raises(error):
        int(text)


def test_every_failing_row_is_named():
    with pytest.raises(pytest.fail.Exception) as failed:
        _is_odd()
    lines = str(failed.value).splitlines()
    assert lines[0] == "2 of 4 rows are wrong:"
    assert [line for line in lines[1:] if not line.startswith(" ")] == ["2", "4"]


def test_a_row_that_should_raise_and_does_not_fails():
    with pytest.raises(pytest.fail.Exception, match=r"1 of 2 rows are wrong:\n'1'"):
        _is_refused()


def test_a_table_without_rows_fails():
    with pytest.raises(AssertionError, match="no rows"):
        each_row("number", [])(_is_odd)()
