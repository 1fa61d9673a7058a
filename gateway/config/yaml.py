"""YAML 1.2 with the line of every value, duplicate keys refused, and `${NAME}` filled in (PURE).

In YAML 1.2 `no` is a word and `12:30` is not 750; a key given twice is an error rather than the last one winning.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gateway.errors import UserError

#: The longest config, in characters, and the deepest nesting.
MAX_LENGTH = 1 << 20
MAX_DEPTH = 40

Path = tuple[str | int, ...]
_REFERENCE = re.compile(r"\$\{(file:)?([^}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in the config that must be mended: where, on which line (from 1), and what to do."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        return f"{place}{self.message}" + (f"  (line {self.line})" if self.line else "")


class ConfigProblems(UserError):
    """Every problem of a config at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class ResolvedText(str):
    """A text whose references were filled in: as what it is now, with how each piece of it was written."""

    __slots__ = ("pieces",)
    #: (as written, value) of each piece; both are the same but for `${NAME}` and `${file:...}`.
    pieces: tuple[tuple[str, str], ...]

    @property
    def written(self) -> str:
        """The text with its references."""
        return "".join(written for written, _ in self.pieces)


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML text holds: plain values, the line of each by its path, and what could not be filled in or read."""

    value: Any
    lines: Mapping[Path, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    #: The texts that have references, by their path.
    filled: Mapping[Path, ResolvedText] = field(default_factory=dict)

    def problem(self, path: Path, message: str) -> Problem:
        """Return a problem of the value at *path*; its line is that of the nearest value around it."""
        near = next((path[:size] for size in range(len(path), -1, -1) if path[:size] in self.lines), ())
        return Problem(path=format_path(path), line=self.lines.get(near), message=message)


def format_path(path: Path) -> str:
    """Return a path as people write it: `policy.matrix[2].action`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def did_you_mean(given: object, known: Sequence[str]) -> str:
    """Return ` (did you mean ...?)` when one of *known* is close to what was given, else ""."""
    close = get_close_matches(str(given), known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def read_document(
    text: str, environ: Mapping[str, str], read_file: Callable[[str], str], *, what: str = "The config"
) -> Document:
    """Read a YAML mapping; raises `ConfigProblems`, whose sentences call it *what*, when it is none.

    A value that has a problem is "".
    """
    tree = _mapping(text, what)
    reading = _Reader(environ, read_file)
    value = reading.plain(tree, ())
    return Document(value, reading.lines, tuple(reading.problems), reading.filled)


def read_key(text: str, name: str, environ: Mapping[str, str], read_file: Callable[[str], str]) -> Any:
    """Return one member of a YAML mapping, None when it has none; what the other members refer to is not looked up.

    Raises `ConfigProblems`.
    """
    tree = _mapping(text, "The config")
    if name not in tree:
        return None
    reading = _Reader(environ, read_file)
    value = reading.plain(tree[name], (name,))
    if reading.problems:
        raise ConfigProblems(tuple(reading.problems))
    return value


class _Reader:
    """One walk through a YAML tree: plain values out, lines and problems kept."""

    def __init__(self, environ: Mapping[str, str], read_file: Callable[[str], str]) -> None:
        self.lines: dict[Path, int] = {(): 1}
        self.problems: list[Problem] = []
        self.filled: dict[Path, ResolvedText] = {}
        self._environ = environ
        self._read_file = read_file

    def plain(self, node: Any, path: Path) -> Any:
        if len(path) > MAX_DEPTH:
            raise _single(self.lines.get(path[:-1]), "The config is nested too deep, or refers to itself.")
        match node:
            case CommentedMap():
                return dict(self._entry(node, key, path) for key in node)
            case CommentedSeq():
                return [self._child(node, number, (*path, number)) for number in range(len(node))]
            case str():
                return self._filled_in(self._text(node, path), path)
            case int() if abs(node) > sys.float_info.max:
                return self._problem(path, "this number is too large.")
            case _:
                return _scalar(node)

    def _entry(self, node: CommentedMap, key: Any, path: Path) -> tuple[str, Any]:
        name = self._text(key, path)
        return name, self._child(node, key, (*path, name))

    def _child(self, node: CommentedMap | CommentedSeq, key: Any, path: Path) -> Any:
        """Return the plain value of a child, and note on which line it stands."""
        if node.lc.data and (where := node.lc.data.get(key)):
            self.lines[path] = where[0] + 1
        return self.plain(node[key], path)

    def _text(self, node: Any, path: Path) -> str:
        """Return a key or text; characters that JSON writes as two halves are joined, half a one is a problem."""
        try:
            return str(node).encode("utf-16", "surrogatepass").decode("utf-16")
        except ValueError:  # also of a number with more digits than Python writes
            return self._problem(path, "this is not text that can be written as UTF-8.")

    def _filled_in(self, text: str, path: Path) -> str:
        """Return *text* with its references filled in; how it was written is kept beside it."""
        pieces, end = [], 0
        for match in _REFERENCE.finditer(text):
            pieces += [(text[end : match.start()],) * 2, (match[0], self._referred(match, path))]
            end = match.end()
        if not pieces:
            return text
        pieces.append((text[end:],) * 2)
        filled = self._text("".join(value for _, value in pieces), path)
        self.filled[path] = ResolvedText(filled)
        self.filled[path].pieces = tuple(pieces)
        return filled

    def _referred(self, match: re.Match[str], path: Path) -> str:
        try:
            return self._read_file(match[2]).rstrip("\n") if match[1] else self._environ[match[2]]
        except KeyError:
            why = f"the environment variable {match[2]} is not set"
        except OSError as error:
            why = f"the file {match[2]} cannot be read ({error.strerror})"
        except ValueError:
            why = f"the file {match[2]} is not UTF-8 text"
        return self._problem(path, f"{why}.")

    def _problem(self, path: Path, message: str) -> str:
        """Note a problem, and return what the value counts as meanwhile."""
        self.problems.append(Document(None, self.lines).problem(path, message))
        return ""


def _mapping(text: str, what: str) -> CommentedMap:
    if len(text) > MAX_LENGTH:
        raise _single(None, f"{what} is longer than {MAX_LENGTH} characters.")
    tree = _parsed(text)
    if tree is None:
        raise _single(1, "The config is empty; it needs at least servers and policy.default.")
    if not isinstance(tree, CommentedMap):
        raise _single(1, f"{what} must be a mapping of keys to values.")
    return tree


def _parsed(text: str) -> Any:
    yaml = YAML(typ="rt", pure=True)
    yaml.allow_duplicate_keys = False
    try:
        return yaml.load(text)
    except DuplicateKeyError as error:
        key = re.search(r'found duplicate key "(.*?)"', str(error))
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _single(line, f"The key {key[1] if key else ''} is given twice; keep one of them.") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _single(line, f"This is not YAML: {error.problem or error.context}.") from error
    except (YAMLError, ValueError) as error:
        raise _single(None, f"This is not YAML: {str(error).splitlines()[0]}.") from error


def _scalar(node: Any) -> Any:
    """Return a scalar without the formatting that the loader keeps with it; tags and dates are text."""
    if node is None or isinstance(node, bool):
        return node
    return next((kind(node) for kind in (int, float) if isinstance(node, kind)), str(node))


def _single(line: int | None, message: str) -> ConfigProblems:
    return ConfigProblems((Problem(path="", line=line, message=message),))
