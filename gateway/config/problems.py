"""Problems in a config: the place of each, and its remedy (PURE)."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.errors import UserError

#: The keys and list indexes that lead to a value: `("policy", "matrix", 2, "action")`.
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a config: the path of the value, how to fix it, and its line (from 1; None when unknown)."""

    path: Path
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"{format_path(self.path)}: " if self.path else ""
        return f"{where}{self.message}" + (f"  (line {self.line})" if self.line else "")


class ConfigProblems(UserError):
    """The config is invalid; `problems` has every problem found."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def format_path(path: Path) -> str:
    """Return a path in dotted form: `policy.matrix[2].action`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """Return ` (did you mean ...?)` if one of *known* is close to *name*, else ""."""
    from difflib import get_close_matches  # loaded for the first mistake

    close = get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
