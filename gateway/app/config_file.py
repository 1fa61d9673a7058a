"""Reads a config file, and of it where the gateway listens: a command that joins a gateway needs nothing else of it."""

import stat
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from gateway.config.addresses import host_and_port
from gateway.config.options import DEFAULT_LISTEN
from gateway.config.yaml import ConfigProblems, Problem, read_key


def read_config_text(path: Path) -> str:
    """Return the text of a config file; raises `ConfigProblems` when it cannot be read, or others can write to it."""
    old = path.with_name("holdpoint.yaml")
    if path.name == "okayed.yaml" and old.exists() and not path.exists():
        raise _one(
            f"Holdpoint is now Okayed, and its config {path}; run: mv {quote(str(old))} {quote(str(path))}"
        )
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
    return text


def read_listen(path: Path, environ: Mapping[str, str]) -> str:
    """Return the `listen` of a config file; raises `ConfigProblems`. What the rest of it refers to may be unset."""
    listen = read_key(
        read_config_text(path), "listen", environ, lambda name: Path(name).read_text(encoding="utf-8")
    )
    try:
        host_and_port(given := _given(listen))
    except ValueError as error:
        raise _one(f"listen: {listen!r} is not host:port or unix:/path.") from error
    return given


def _given(listen: object) -> str:
    """Return the place in a `listen` as it is written; LISTEN where there is none."""
    if isinstance(listen, Mapping):
        return f"unix:{listen.get('unix', '')}"
    return DEFAULT_LISTEN if listen is None else str(listen)


def _one(message: str, line: int | None = None) -> ConfigProblems:
    return ConfigProblems((Problem(path="", line=line, message=message),))
