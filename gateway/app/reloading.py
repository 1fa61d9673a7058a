"""Reloads the config whenever its file changes."""

import asyncio
import logging
import os
from pathlib import Path

from watchfiles import awatch

from approvals.errors import StoreError
from gateway.app.config import load_config
from gateway.app.gateway import Gateway
from gateway.config.problems import ConfigProblems

#: The keys that take effect only at the next start.
FIXED_KEYS = ("listen", "url", "hosts", "trusted_proxies", "store", "store_key", "inbox", "slack", "webhooks")
log = logging.getLogger("okayed")


async def watch_config(path: Path, gateway: Gateway, stop: asyncio.Event) -> None:
    """Reload the config after each change of its file, until *stop*."""
    # Kubernetes mounts a config as a link through `..data`, and replaces that link.
    names = {path.name, "..data"}
    async for _ in awatch(
        path.parent, stop_event=stop, recursive=False, watch_filter=lambda _, changed: Path(changed).name in names,
    ):  # fmt: skip
        await reload_config(path, gateway)


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
