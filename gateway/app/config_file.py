"""Reads the text of a config file, or only its `listen` key, for commands that just join a gateway."""

import stat
from collections.abc import Mapping
from pathlib import Path

from gateway.app.earlier_name import refuse_earlier_config
from gateway.config.addresses import parse_host_and_port
from gateway.config.options import DEFAULT_LISTEN
from gateway.config.problems import ConfigProblems, Problem
from gateway.config.yaml import read_key


def read_config_text(path: Path) -> str:
    """Return the text of a config file; raises `ConfigProblems` if it cannot be read or other users can write to it."""
    refuse_earlier_config(path)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        remedy = "name the config with -c, or try Okayed without one: okayed demo"
        raise _problem(f"{path} does not exist; {remedy}") from error
    except OSError as error:
        raise _problem(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise _problem(f"{path} is not UTF-8 text.") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        scope = "world" if mode & stat.S_IWOTH else "group"
        why = f"{path} is {scope}-writable, so an agent could change its own rules"
        raise _problem(f"{why}; run: chmod go-w {path}", line=1)
    return text


def read_listen(path: Path, environ: Mapping[str, str]) -> str:
    """Return the `listen` address of a config file; references in other keys may be unset. Raises `ConfigProblems`."""
    listen = read_key(
        read_config_text(path), "listen", environ, lambda name: Path(name).read_text(encoding="utf-8")
    )
    try:
        parse_host_and_port(address := _address(listen))
    except ValueError as error:
        raise _problem(f"listen: {listen!r} is not host:port or unix:/path.") from error
    return address


def _address(listen: object) -> str:
    """Return the address in an unchecked `listen` value, or DEFAULT_LISTEN."""
    if isinstance(listen, Mapping):
        return f"unix:{listen.get('unix', '')}"
    return DEFAULT_LISTEN if listen is None else str(listen)


def _problem(message: str, line: int | None = None) -> ConfigProblems:
    return ConfigProblems(Problem((), message, line))
