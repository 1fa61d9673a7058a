"""Opens the store of a config: for use, or read-only while a gateway is running."""

from pathlib import Path
from typing import TYPE_CHECKING

from approvals.store import PinReader, Store, TrailReader
from approvals.store.memory.store import MemoryStore
from approvals.store.sqlite.read_only import ReadOnlyStore
from gateway.config.options import Config
from gateway.errors import UserError

if TYPE_CHECKING:
    from approvals.store.sqlite.file_check import FileReport

#: The address of an in-memory store, which is lost when the process ends.
MEMORY = "memory:"


class TrailNotFound(UserError):
    """The store has no audit trail; the message says why."""


async def open_store(config: Config, *, restored: bool = False) -> Store:
    """Open the store of a config; *restored* treats it as a restored copy. Raises `StoreError`."""
    key = (config.store_key or "").encode()
    if config.store == MEMORY:
        return MemoryStore(chain_key=key)
    from approvals.store.sqlite.store import SqliteStore

    return await SqliteStore.open(store_path(config.store), chain_key=key, restored=restored)


def check_store(config: Config) -> "FileReport":
    """Check the file of a config's store without changing it; raises `StoreError`, and `UserError` without a file."""
    if config.store == MEMORY:
        raise UserError("An in-memory store has no file to check.")
    if not (path := store_path(config.store)).is_file():
        raise UserError(f"There is no store at {path} yet; start the gateway once with: okayed run")
    from approvals.store.sqlite.file_check import check_file

    return check_file(path, (config.store_key or "").encode())


def open_trail(url: str) -> TrailReader:
    """Open the audit trail of a store read-only; raises `TrailNotFound`."""
    if url == MEMORY:
        raise TrailNotFound("A store in memory keeps no audit trail; use store: sqlite:///okayed.db")
    if not (path := store_path(url)).exists():
        raise TrailNotFound(f"There is no store at {path} yet; start the gateway once with: okayed run")
    return ReadOnlyStore(path)


def open_pins(url: str) -> PinReader:
    """Open the accepted tool definitions of a store read-only; empty if the store does not exist yet."""
    return MemoryStore() if url == MEMORY else ReadOnlyStore(store_path(url))


def store_path(url: str) -> Path:
    """Return the file of a `sqlite:///` store."""
    return Path(url.removeprefix("sqlite:///"))
