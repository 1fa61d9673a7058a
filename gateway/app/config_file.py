"""Reads the text of a config file, or only the keys that a command needs: `listen`, or those of the store."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.app.earlier_name import refuse_earlier_config, refuse_earlier_store
from gateway.config.addresses import parse_host_and_port
from gateway.config.options import DEFAULT_LISTEN, DEFAULT_STORE, STORE_ERROR, is_store
from gateway.config.problems import ConfigProblems, Problem
from gateway.config.yaml import read_key

#: The scheme of a SQLite store.
SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """The address of a store, with an absolute path, and the key that seals it."""

    store: str
    store_key: str = ""


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
    listen = _read_key(read_config_text(path), "listen", environ)
    try:
        parse_host_and_port(address := _address(listen))
    except ValueError as error:
        raise _problem(f"listen: {listen!r} is not host:port or unix:/path.") from error
    return address


def read_store_config(path: Path, environ: Mapping[str, str]) -> StoreConfig:
    """Return the store of a config file; references in other keys may be unset. Raises `ConfigProblems`."""
    text = read_config_text(path)
    store = _read_key(text, "store", environ) or DEFAULT_STORE
    if not isinstance(store, str) or not is_store(store):
        raise _problem(f"store: {STORE_ERROR}")
    key = _read_key(text, "store_key", environ) or ""
    if not isinstance(key, str):
        raise _problem("store_key: this must be text.")
    return StoreConfig(resolve_store(store, path.absolute().parent), key)


def resolve_store(store: str, folder: Path) -> str:
    """Return the address of a store with an absolute path, so that every command finds the same store."""
    file = store.removeprefix(SQLITE)
    if file == store:
        return store
    refuse_earlier_store(path := folder / file)
    return f"{SQLITE}{path}"


def _read_key(text: str, name: str, environ: Mapping[str, str]) -> Any:
    return read_key(text, name, environ, lambda file: Path(file).read_text(encoding="utf-8"))


def _address(listen: object) -> str:
    """Return the address in an unchecked `listen` value, or DEFAULT_LISTEN."""
    if isinstance(listen, Mapping):
        return f"unix:{listen.get('unix', '')}"
    return DEFAULT_LISTEN if listen is None else str(listen)


def _problem(message: str, line: int | None = None) -> ConfigProblems:
    return ConfigProblems(Problem((), message, line))
