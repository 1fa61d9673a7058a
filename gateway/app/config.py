"""Loads a config: parses the YAML, validates it, and reports every problem at once with its path and line."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as File
from typing import Any

import msgspec

from gateway.app.config_file import read_config_text, resolve_store
from gateway.auth import issuers
from gateway.config.checks import channels, listeners, people, servers, values
from gateway.config.options import AuditOptions, Config
from gateway.config.problems import ConfigProblems, Path, Problem
from gateway.config.schema import find_shape_problems
from gateway.config.yaml import ResolvedText, read_document
from gateway.errors import UserError
from gateway.policy.compiling import compile_policy

#: The checks of a config whose shape is valid, in this order.
CHECKS = (servers, people, issuers, listeners, channels, values)
#: Replaces a rule whose shape is invalid, so that the rest of the config is still checked.
_PLACEHOLDER_RULE = {"action": "deny"}


def load_config(path: File, environ: Mapping[str, str]) -> Config:
    """Load a config file and resolve relative paths in it against its folder; raises `ConfigProblems`."""
    config = parse_config(
        read_config_text(path), environ, lambda name: File(name).read_text(encoding="utf-8")
    )
    folder = path.absolute().parent
    return msgspec.structs.replace(
        config, store=resolve_store(config.store, folder), audit=_resolve_checkpoint(config.audit, folder)
    )


def _resolve_checkpoint(audit: AuditOptions, folder: File) -> AuditOptions:
    if audit.checkpoint is None or not audit.checkpoint.file:
        return audit
    checkpoint = msgspec.structs.replace(audit.checkpoint, file=str(folder / audit.checkpoint.file))
    return msgspec.structs.replace(audit, checkpoint=checkpoint)


def check_server_name(config: Config, name: str) -> str:
    """Return *name* if the config has a server of that name; raises `UserError` with the known names."""
    if name not in config.servers:
        raise UserError(f"The config has no server {name!r}; it has {', '.join(config.servers)}.")
    return name


def parse_config(text: str, environ: Mapping[str, str], read_file: Callable[[str], str]) -> Config:
    """Parse and validate YAML text; raises `ConfigProblems` with every problem."""
    document = read_document(text, environ, read_file)
    unreadable = {problem.path for problem in document.problems}
    shape = [problem for problem in find_shape_problems(document.value) if problem.path not in unreadable]
    problems = [*document.problems, *map(document.locate, shape)]
    if unreadable or not all(_is_in_rule(problem.path) for problem in shape):
        raise ConfigProblems(*problems)
    for problem in shape:
        document.value["policy"][problem.path[1]][problem.path[2]] = _PLACEHOLDER_RULE
    document.value["servers"] = _keep_references(document.value["servers"], document.resolved, ("servers",))
    config = msgspec.convert(document.value, Config)
    problems += map(document.locate, _meaning_problems(config))
    if problems:
        raise ConfigProblems(*problems)
    return config


def _meaning_problems(config: Config) -> Iterator[Problem]:
    """Report the problems of a config whose shape is valid. The policy compiles only if all durations are valid."""
    for check in CHECKS:
        yield from check.find_problems(config)
    durations = list(values.find_duration_problems(config))
    yield from durations or _policy_problems(config)


def _policy_problems(config: Config) -> Iterator[Problem]:
    try:
        compile_policy(config)
    except ConfigProblems as error:
        yield from error.problems


def _keep_references(value: Any, resolved: Mapping[Path, ResolvedText], path: Path) -> Any:
    """Return *value* with its resolved strings as `ResolvedText`, from which server identities are computed."""
    match value:
        case dict():
            return {name: _keep_references(item, resolved, (*path, name)) for name, item in value.items()}
        case list():
            return [_keep_references(item, resolved, (*path, number)) for number, item in enumerate(value)]
    return resolved.get(path, value)


def _is_in_rule(path: Path) -> bool:
    """Return whether *path* leads to a policy rule or into one; the rest of a config does not depend on rules."""
    return len(path) > 2 and path[:2] in (("policy", "tools"), ("policy", "matrix"))
