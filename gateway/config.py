"""From YAML to values, with every problem told at once: path, line, one plain sentence (PURE but for `load`)."""

import stat
from collections.abc import Callable, Mapping
from pathlib import Path as File

import msgspec

from gateway.checking.meaning import meaning_problems
from gateway.checking.shape import schema, shape_problems
from gateway.errors import UserError
from gateway.options import Config
from gateway.yaml import ConfigProblems, Problem, read

__all__ = ["Config", "ConfigProblems", "Problem", "load", "parse", "schema"]


def load(path: File, environ: Mapping[str, str]) -> Config:
    """Read the config file; raises `ConfigProblems`."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _one(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise _one(f"{path} is not UTF-8 text.") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "everybody" if mode & stat.S_IWOTH else "its group"
        raise _one(
            f"{path} can be written by {who}, so an agent could change its own rules; run: chmod go-w {path}",
            line=1,
        )
    return parse(text, environ, lambda name: File(name).read_text(encoding="utf-8"))


def known_server(config: Config, name: str) -> str:
    """Return *name* when the config has a server of that name; raises `UserError` with those that it has."""
    if name not in config.servers:
        raise UserError(f"The config has no server {name!r}; it has {', '.join(config.servers)}.")
    return name


def _one(message: str, line: int | None = None) -> ConfigProblems:
    return ConfigProblems((Problem(path="", line=line, message=message),))


def parse(text: str, environ: Mapping[str, str], read_file: Callable[[str], str]) -> Config:
    """Turn YAML into a config; raises `ConfigProblems` with all that is wrong."""
    document = read(text, environ, read_file)
    if problems := tuple(shape_problems(document)):
        raise ConfigProblems(problems)
    config = msgspec.convert(document.value, Config)
    if problems := tuple(document.problem(path, message) for path, message in meaning_problems(config)):
        raise ConfigProblems(problems)
    return config
