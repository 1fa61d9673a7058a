"""Which definition of each tool was accepted: the first that was seen, until a person accepts another.

A server may change what a tool does after it was trusted. Names are worth nothing then, so trust is bound to the hash of the definition.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import unified_diff
from enum import Enum
from typing import Any

import msgspec

from approvals.digest import sha256
from approvals.model import Pin
from approvals.safetext import escape_hidden
from approvals.store import StateStore

#: The longest difference that is kept with a held call, in characters.
MAX_DIFFERENCE = 20_000


class ChangeAction(Enum):
    """What becomes of a tool whose definition changed."""

    WARN = "warn"
    REASK = "reask"
    QUARANTINE = "quarantine"


def canonical_definition(definition: Mapping[str, Any]) -> bytes:
    """Return a definition in the one form that is hashed and kept."""
    return msgspec.json.encode(definition, order="deterministic")


class Pins:
    """The accepted definitions of all tools."""

    def __init__(self, store: StateStore, kept: Iterable[Pin]) -> None:
        self._store = store
        self._pins = {(pin.server, pin.tool): pin for pin in kept}
        self._identities: Mapping[str, str] = {}

    def bind(self, identities: Mapping[str, str]) -> None:
        """Bind the pins of before to their server as it is now: at the first start that knows identities."""
        for place, pin in self._pins.items():
            if not pin.identity and (identity := identities.get(pin.server)):
                self._pins[place] = replace(pin, identity=identity)
                self._store.save_pin(self._pins[place])

    def configure(self, identities: Mapping[str, str]) -> None:
        """Use these identities of servers, by name, from now on."""
        self._identities = identities

    def find(self, server: str, tool: str) -> Pin | None:
        """Return the pin of a tool, or None for one that was never seen."""
        return self._pins.get((server, tool))

    def find_trusted(self, server: str, tool: str) -> Pin | None:
        """Return the pin of a tool when the server of that name is still the one that gave the definition."""
        pin = self.find(server, tool)
        return pin if pin is not None and pin.identity == self._identity(server) else None

    def _identity(self, server: str) -> str:
        return self._identities.get(server, "")

    def accept(self, server: str, tool: str, definition: bytes) -> None:
        """Take this definition for the accepted one from now on."""
        pin = Pin(
            server=server, tool=tool, hash=sha256(definition), definition=definition, identity=self._identity(server),
        )  # fmt: skip
        self._pins[server, tool] = pin
        self._store.save_pin(pin)


def format_diff(was: bytes, now: bytes) -> str:
    """Return, line by line, how a definition differs from the accepted one; hidden characters are made visible."""
    before, after = (_indented_lines(one) for one in (was, now))
    lines = list(unified_diff(before, after, "accepted", "now", lineterm="", n=2))
    told = "\n".join(escape_hidden(line) for line in lines)
    if len(told) <= MAX_DIFFERENCE:
        return told
    return f"{told[:MAX_DIFFERENCE]}\n... {len(told) - MAX_DIFFERENCE} more characters"


def _indented_lines(definition: bytes) -> list[str]:
    return msgspec.json.format(definition, indent=2).decode().splitlines()
