"""How long each known MCP client keeps a call open while it gets signs of life (PURE).

A client is identified by its own `clientInfo` name. The name decides only how long its connection is kept open.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeVar

from gateway.call.hold_settings import ClientRule

HOUR = 3600.0
Value = TypeVar("Value")
#: Seconds for an unknown client: below the most common SDK's timeout of 60 s.
DEFAULT_WAIT = 50.0
#: Seconds by client name (a pattern), measured or from the client's documentation; see docs/protocol.md.
WAITS: Mapping[str, float] = {
    "claude-code*": 24 * HOUR,
    "visual studio code*": 24 * HOUR,
    "mcp": 4 * HOUR,  # the default name of the Python SDK and of clients built on it
    "fastmcp*": 4 * HOUR,
    "opencode*": 580.0,
    "qwen-cli-mcp-client*": 580.0,
    "gemini-cli-mcp-client*": 580.0,
    "codex*": 280.0,
    "cursor*": 280.0,
    "claude-ai*": DEFAULT_WAIT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHold:
    """How one client's calls are held."""

    #: The most seconds that its connection is kept open.
    wait: float
    #: Whether a shorter wait may be learned from its behaviour.
    learns: bool
    #: Whether it gets WAITING as a result without `isError`.
    as_result: bool


def client_hold(name: str, hold_for: float | None, rules: Mapping[str, ClientRule]) -> ClientHold:
    """Return how calls of the client *name* are held.

    *hold_for* is the config's wait for all clients (None for `auto`). *rules* are the config's rules by client name;
    they override the table above.
    """
    names = (name.lower(), strip_relay(name).lower())
    rule = _first_match(names, rules) or ClientRule()
    configured = rule.wait or hold_for
    wait = configured or _known_wait(names)
    return ClientHold(wait=wait, learns=configured is None, as_result=rule.as_result)


@lru_cache(maxsize=256)
def _known_wait(names: tuple[str, ...]) -> float:
    return _first_match(names, WAITS) or DEFAULT_WAIT


def _first_match(names: Iterable[str], table: Mapping[str, Value]) -> Value | None:
    """Return the value of the first pattern that matches one of the names."""
    return next(
        (
            value
            for pattern, value in table.items()
            if any(fnmatchcase(name, pattern.lower()) for name in names)
        ),
        None,
    )


def strip_relay(client: str) -> str:
    """Remove the suffix that a relay appends to the client's name: `mcp (via mcp-remote 0.15.1)` -> `mcp`.

    mcp-remote sets no timeout, so the timeout is that of the client behind it.
    """
    return client.partition(" (via ")[0]
