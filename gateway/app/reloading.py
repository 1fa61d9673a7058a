"""Reloads the config whenever its file changes."""

import asyncio
import logging
import os
from pathlib import Path

from approvals.errors import StoreError
from gateway.app.config import load_config
from gateway.app.gateway import Gateway
from gateway.config.problems import ConfigProblems

#: The keys that take effect only at the next start.
FIXED_KEYS = ("listen", "url", "hosts", "trusted_proxies", "store", "store_key", "inbox", "slack", "webhooks")
#: Seconds between two looks at the config file.
INTERVAL = 0.5
FileVersion = tuple[tuple[int, int, int] | None, ...]
log = logging.getLogger("okayed")


async def watch_config(
    path: Path, gateway: Gateway, *, loaded: FileVersion, interval: float = INTERVAL
) -> None:
    """Reload the config after each change of its file since *loaded*, until cancelled."""
    earlier = loaded
    while True:
        await asyncio.sleep(interval)
        now = read_version(path)
        if now == earlier != loaded:  # a file that changed since the last look may not be complete
            loaded = now
            await reload_config(path, gateway)
        earlier = now


def read_version(path: Path) -> FileVersion:
    """Return a value that changes with the file, or with the link `..data` by which Kubernetes mounts its folder."""
    return tuple(map(_version, (path, path.with_name("..data"))))


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


async def reload_config(path: Path, gateway: Gateway) -> None:
    """Switch to the config in the file; if it is invalid, log the problems and keep the current one."""
    try:
        config = load_config(path, os.environ)
    except ConfigProblems as problems:
        log.error("the changed config is invalid; the previous one is still in use:\n%s", problems)  # noqa: TRY400  (a traceback would bury the problems)
        return
    fixed = [name for name in FIXED_KEYS if getattr(config, name) != getattr(gateway.config, name)]
    try:
        await gateway.adopt(config)
    except StoreError as error:
        log.error("the waiting calls could not be checked against the changed config: %s", error)  # noqa: TRY400  (a traceback adds nothing)
    log.info("the changed config is in use")
    if fixed:
        log.warning("restart the gateway to apply the change of: %s", ", ".join(fixed))
