"""From YAML to values, with every problem told at once: path, line, one plain sentence (PURE but for `load`)."""

from collections.abc import Callable, Mapping
from pathlib import Path as File
from shlex import quote
from typing import Any

import msgspec

from gateway.app.checks import meaning_problems
from gateway.app.config_file import read_config_text
from gateway.config.options import Config
from gateway.config.schema import shape_problems
from gateway.config.yaml import ConfigProblems, Path, Problem, ResolvedText, format_path, read_document
from gateway.errors import UserError

#: What a store's place begins with when it is a file.
SQLITE = "sqlite:///"


#: What stands in for a rule of a wrong shape, so that what the others mean is checked as well.
_ANY_RULE = {"action": "deny"}


def load_config(path: File, environ: Mapping[str, str]) -> Config:
    """Read the config file; raises `ConfigProblems`."""
    config = parse_config(
        read_config_text(path), environ, lambda name: File(name).read_text(encoding="utf-8")
    )
    folder = path.absolute().parent
    audit = config.audit
    if audit.checkpoint and audit.checkpoint.file:
        file = str(folder / audit.checkpoint.file)
        audit = msgspec.structs.replace(
            audit, checkpoint=msgspec.structs.replace(audit.checkpoint, file=file)
        )
    return msgspec.structs.replace(config, store=_placed(config.store, folder), audit=audit)


def _placed(store: str, folder: File) -> str:
    """Return where a store is, seen from the config's folder: every command finds the same one, wherever it is started."""
    file = store.removeprefix(SQLITE)
    if file == store:
        return store
    _refuse_an_earlier_store(place := folder / file)
    return f"{SQLITE}{place}"


def _refuse_an_earlier_store(path: File) -> None:
    """Raise `ConfigProblems` when only a store of the product's earlier name is there: a new one would lack its calls."""
    if path.name == "okayed.db" and not path.exists() and path.with_name("holdpoint.db").exists():
        said = (
            f"Holdpoint is now Okayed, and its store {path}; stop the old gateway, then run:"
            f' cd {quote(str(path.parent))} && for file in holdpoint.db*; do mv "$file" "okayed${{file#holdpoint}}"; done'
        )
        raise ConfigProblems((Problem(path="store", line=None, message=said),))


def check_server_name(config: Config, name: str) -> str:
    """Return *name* when the config has a server of that name; raises `UserError` with those that it has."""
    if name not in config.servers:
        raise UserError(f"The config has no server {name!r}; it has {', '.join(config.servers)}.")
    return name


def parse_config(text: str, environ: Mapping[str, str], read_file: Callable[[str], str]) -> Config:
    """Turn YAML into a config; raises `ConfigProblems` with all that is wrong."""
    document = read_document(text, environ, read_file)
    unread = {problem.path for problem in document.problems}
    shape = [said for said in shape_problems(document.value) if format_path(said[0]) not in unread]
    problems = [*document.problems, *(document.problem(*said) for said in shape)]
    if unread or not all(_in_a_rule(path) for path, _ in shape):
        raise ConfigProblems(tuple(problems))
    for path, _ in shape:
        document.value["policy"][path[1]][path[2]] = _ANY_RULE
    document.value["servers"] = _remembering(document.value["servers"], document.filled, ("servers",))
    config = msgspec.convert(document.value, Config)
    problems += [document.problem(*said) for said in meaning_problems(config)]
    if problems:
        raise ConfigProblems(tuple(problems))
    return config


def _remembering(value: Any, filled: Mapping[Path, ResolvedText], path: Path) -> Any:
    """Return *value* with each text that has references as one that knows them; only identities ask for that."""
    match value:
        case dict():
            return {name: _remembering(one, filled, (*path, name)) for name, one in value.items()}
        case list():
            return [_remembering(one, filled, (*path, number)) for number, one in enumerate(value)]
    return filled.get(path, value)


def _in_a_rule(path: Path) -> bool:
    """Whether a path is that of a rule, or leads into one: no other part of a config depends on it."""
    return len(path) > 2 and path[:2] in (("policy", "tools"), ("policy", "matrix"))
