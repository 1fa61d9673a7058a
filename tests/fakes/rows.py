"""A table of pure cases as one test: every row runs, and the failure lists each row that fails."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest


def each_row(
    names: str | Sequence[str], rows: Iterable[Any]
) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Run a test with every row, given as pytest.mark.parametrize takes them."""
    columns, table = names, list(rows)
    if isinstance(names, str):
        columns, table = (names,), [(row,) for row in table]

    def decorated(test: Callable[..., None]) -> Callable[[], None]:
        def every_row() -> None:
            assert table, "The table has no rows."
            if wrong := [said for row in table if (said := _complaint(test, columns, row))]:
                pytest.fail(
                    f"{len(wrong)} of {len(table)} rows are wrong:\n" + "\n".join(wrong), pytrace=False
                )

        every_row.__name__, every_row.__doc__ = test.__name__, test.__doc__
        return every_row

    return decorated


def _complaint(test: Callable[..., None], columns: Sequence[str], row: Sequence[Any]) -> str:
    try:
        test(**dict(zip(columns, row, strict=True)))
    except (Exception, pytest.fail.Exception) as error:
        return f"{', '.join(f'{value!r:.200}' for value in row)}\n    {type(error).__name__}: {error}"
    return ""
