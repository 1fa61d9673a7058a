"""Reads YAML 1.2 with line numbers, and resolves `${NAME}` and `${file:PATH}` (PURE).

In YAML 1.2 `no` is a string and `12:30` is not 750. A duplicate key is an error: the last value does not win.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gateway.config.problems import ConfigProblems, Path, Problem

#: The longest config, in characters, and the deepest nesting.
MAX_LENGTH = 1 << 20
MAX_DEPTH = 40

_REFERENCE = re.compile(r"\$\{(file:)?([^}]*)\}")


class ResolvedText(str):
    """A string whose references were resolved; remembers how each piece was written."""

    __slots__ = ("pieces",)
    #: (as written, value) of each piece. They differ only for `${NAME}` and `${file:PATH}`.
    pieces: tuple[tuple[str, str], ...]

    @property
    def written(self) -> str:
        """The text with its references."""
        return "".join(written for written, _ in self.pieces)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML mapping: plain values, their lines by path, and the problems found."""

    value: Any
    lines: Mapping[Path, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    #: The strings with references, by path.
    resolved: Mapping[Path, ResolvedText] = field(default_factory=dict)

    def locate(self, problem: Problem) -> Problem:
        """Return *problem* with its line: that of the value, or of the nearest value around it."""
        return _locate(problem, self.lines)


def read_document(
    text: str, environ: Mapping[str, str], read_file: Callable[[str], str], *, title: str = "The config"
) -> Document:
    """Read a YAML mapping; a value with a problem becomes "".

    *title* names the text in messages. Raises `ConfigProblems` if it is not a YAML mapping.
    """
    tree = _parse_mapping(text, title)
    reader = _Reader(environ, read_file)
    value = reader.convert(tree, ())
    return Document(value, reader.lines, tuple(reader.problems), reader.resolved)


def read_key(text: str, name: str, environ: Mapping[str, str], read_file: Callable[[str], str]) -> Any:
    """Return the value of one top-level key, or None; references in other keys are not resolved.

    Raises `ConfigProblems`.
    """
    tree = _parse_mapping(text, "The config")
    if name not in tree:
        return None
    reader = _Reader(environ, read_file)
    value = reader.convert(tree[name], (name,))
    if reader.problems:
        raise ConfigProblems(*reader.problems)
    return value


def _locate(problem: Problem, lines: Mapping[Path, int]) -> Problem:
    path = problem.path
    nearest = next((path[:size] for size in range(len(path), -1, -1) if path[:size] in lines), ())
    return replace(problem, line=lines.get(nearest))


class _Reader:
    """Converts a YAML tree to plain values; collects lines and problems."""

    def __init__(self, environ: Mapping[str, str], read_file: Callable[[str], str]) -> None:
        self.lines: dict[Path, int] = {(): 1}
        self.problems: list[Problem] = []
        self.resolved: dict[Path, ResolvedText] = {}
        self._environ = environ
        self._read_file = read_file

    def convert(self, node: Any, path: Path) -> Any:
        if len(path) > MAX_DEPTH:
            raise _problem(self.lines.get(path[:-1]), "The config is nested too deeply, or refers to itself.")
        match node:
            case CommentedMap():
                return dict(self._entry(node, key, path) for key in node)
            case CommentedSeq():
                return [self._child(node, number, (*path, number)) for number in range(len(node))]
            case str():
                return self._resolve(self._decode(node, path), path)
            case int() if abs(node) > sys.float_info.max:
                return self._report(path, "this number is too large.")
            case _:
                return _scalar(node)

    def _entry(self, node: CommentedMap, key: Any, path: Path) -> tuple[str, Any]:
        name = self._decode(key, path)
        return name, self._child(node, key, (*path, name))

    def _child(self, node: CommentedMap | CommentedSeq, key: Any, path: Path) -> Any:
        """Convert a child, and remember its line."""
        if node.lc.data and (where := node.lc.data.get(key)):
            self.lines[path] = where[0] + 1
        return self.convert(node[key], path)

    def _decode(self, node: Any, path: Path) -> str:
        """Return a key or a string with surrogate pairs joined; reports a lone surrogate."""
        try:
            return str(node).encode("utf-16", "surrogatepass").decode("utf-16")
        except ValueError:  # also for an integer with more digits than Python converts
            return self._report(path, "this is not valid Unicode text.")

    def _resolve(self, text: str, path: Path) -> str:
        """Replace the references in *text*; remembers how it was written."""
        pieces, end = [], 0
        for match in _REFERENCE.finditer(text):
            pieces += [(text[end : match.start()],) * 2, (match[0], self._look_up(match, path))]
            end = match.end()
        if not pieces:
            return text
        pieces.append((text[end:],) * 2)
        resolved = self._decode("".join(value for _, value in pieces), path)
        self.resolved[path] = ResolvedText(resolved)
        self.resolved[path].pieces = tuple(pieces)
        return resolved

    def _look_up(self, match: re.Match[str], path: Path) -> str:
        try:
            return self._read_file(match[2]).rstrip("\n") if match[1] else self._environ[match[2]]
        except KeyError:
            why = f"the environment variable {match[2]} is not set"
        except OSError as error:
            why = f"the file {match[2]} cannot be read ({error.strerror})"
        except ValueError:
            why = f"the file {match[2]} is not UTF-8 text"
        return self._report(path, f"{why}.")

    def _report(self, path: Path, message: str) -> str:
        """Add a problem; returns the placeholder for the value."""
        self.problems.append(_locate(Problem(path, message), self.lines))
        return ""


def _parse_mapping(text: str, title: str) -> CommentedMap:
    if len(text) > MAX_LENGTH:
        raise _problem(None, f"{title} is longer than {MAX_LENGTH} characters.")
    tree = _parse(text)
    if tree is None:
        raise _problem(1, "The config is empty; add at least servers and policy.default.")
    if not isinstance(tree, CommentedMap):
        raise _problem(1, f"{title} must be a mapping of keys to values.")
    return tree


def _parse(text: str) -> Any:
    yaml = YAML(typ="rt", pure=True)
    yaml.allow_duplicate_keys = False
    try:
        return yaml.load(text)
    except DuplicateKeyError as error:
        key = re.search(r'found duplicate key "(.*?)"', str(error))
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _problem(line, f"The key {key[1] if key else ''} appears twice; remove one of them.") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _problem(line, f"This is not valid YAML: {error.problem or error.context}.") from error
    except (YAMLError, ValueError) as error:
        raise _problem(None, f"This is not valid YAML: {str(error).splitlines()[0]}.") from error


def _scalar(node: Any) -> Any:
    """Return a scalar without the loader's formatting; tags and dates become strings."""
    if node is None or isinstance(node, bool):
        return node
    return next((kind(node) for kind in (int, float) if isinstance(node, kind)), str(node))


def _problem(line: int | None, message: str) -> ConfigProblems:
    return ConfigProblems(Problem((), message, line))
