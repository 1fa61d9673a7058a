"""Pins the accepted definition of each tool: the first one seen, until a person accepts another.

A server may change a tool after it was trusted under the same name, so trust is bound to the definition's hash.
"""

from collections.abc import Iterable, Mapping
from difflib import unified_diff
from enum import Enum
from typing import Any

import msgspec
from msgspec.structs import replace

from approvals.digest import sha256
from approvals.model import Pin
from approvals.safetext import escape_hidden
from approvals.store import StateStore

#: The longest diff stored with a held call, in characters.
MAX_DIFFERENCE = 20_000


class ChangeAction(Enum):
    """The action for calls of a tool whose definition has changed."""

    WARN = "warn"
    REASK = "reask"
    QUARANTINE = "quarantine"


def canonical_definition(definition: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of a definition, which is hashed and stored."""
    return msgspec.json.encode(definition, order="deterministic")


class Pins:
    """The pins of all tools: one accepted definition for each server and tool."""

    def __init__(self, store: StateStore, pins: Iterable[Pin]) -> None:
        self._store = store
        self._pins = {(pin.server, pin.tool): pin for pin in pins}
        self._identities: Mapping[str, str] = {}
        #: How many pins this process has saved.
        self._saved = 0

    async def reload(self) -> frozenset[str]:
        """Read the pins from the store; return the servers whose pins another replica changed. Raises `StoreError`."""
        saved, stored = self._saved, {(pin.server, pin.tool): pin for pin in await self._store.pins()}
        if saved != self._saved:
            return frozenset()  # the rows are out of date; the signal of the new pin follows
        changed = {key: pin for key, pin in stored.items() if self._pins.get(key) != pin}
        self._pins |= changed
        return frozenset(server for server, _ in changed)

    def bind(self, identities: Mapping[str, str]) -> None:
        """Bind pins without an identity, stored by older versions, to the current identities."""
        for pin in self._pins.values():
            if not pin.identity and (identity := identities.get(pin.server)):
                self._save(replace(pin, identity=identity))

    def configure(self, identities: Mapping[str, str]) -> None:
        """Switch to these server identities, by server name."""
        self._identities = identities

    def find(self, server: str, tool: str) -> Pin | None:
        """Return the pin of a tool, or None."""
        return self._pins.get((server, tool))

    def find_trusted(self, server: str, tool: str) -> Pin | None:
        """Return the pin of a tool if the server of that name still has the pin's identity."""
        pin = self.find(server, tool)
        return pin if pin is not None and pin.identity == self._identity(server) else None

    def _identity(self, server: str) -> str:
        return self._identities.get(server, "")

    def accept(self, server: str, tool: str, definition: bytes) -> None:
        """Pin *definition*, canonical JSON, as the accepted one."""
        pin = Pin(
            server=server, tool=tool, hash=sha256(definition), definition=definition, identity=self._identity(server),
        )  # fmt: skip
        self._save(pin)

    def _save(self, pin: Pin) -> None:
        self._store.save_pin(pin)
        self._saved += 1
        self._pins[pin.server, pin.tool] = pin


def format_diff(was: bytes, now: bytes) -> str:
    """Return the diff of a definition against the accepted one, with hidden characters made visible."""
    before, after = (_indented_lines(definition) for definition in (was, now))
    lines = list(unified_diff(before, after, "accepted", "now", lineterm="", n=2))
    diff = "\n".join(escape_hidden(line) for line in lines)
    if len(diff) <= MAX_DIFFERENCE:
        return diff
    return f"{diff[:MAX_DIFFERENCE]}\n... {len(diff) - MAX_DIFFERENCE} more characters"


def _indented_lines(definition: bytes) -> list[str]:
    return msgspec.json.format(definition, indent=2).decode().splitlines()
