"""The sealed state that a client of 2026-07-28 carries between the rounds of one call (MCP, `input_required`).

It names the held call and the round, and wraps the state of a server that asked for input itself. A client can neither read
nor change it; whose it is, and that it is used once, is checked against the store.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.frames import ToolCall

#: What every state of ours begins with; a state that does not is the server's.
PREFIX = "holdpoint."
#: The key of our own question among the input requests.
QUESTION = "holdpoint"


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """What the state says."""

    call: str
    round: int = 0
    #: Whether the server asked for input, and the state that it gave, if any.
    asked: bool = False
    state: str | None = None


class ForgedError(Exception):
    """Invalid or expired requestState."""


class Seals:
    """Seals and opens tickets with AES-256-GCM; the first key seals, every key opens."""

    def __init__(self, keys: list[bytes]) -> None:
        # The SDK's codec is late in loading, and most gateways need it seldom.
        from mcp.server.request_state import AESGCMRequestStateCodec, InvalidRequestState

        self._codec = AESGCMRequestStateCodec(keys)
        self._invalid = InvalidRequestState

    def seal(self, ticket: Ticket) -> str:
        """Return the state to give to the client."""
        return PREFIX + self._codec.seal(msgspec.json.encode(ticket))

    def open(self, state: str) -> Ticket:
        """Return what was sealed, or raise `ForgedError`."""
        try:
            return msgspec.json.decode(self._codec.unseal(state.removeprefix(PREFIX)), type=Ticket)
        except (self._invalid, msgspec.MsgspecError) as error:
            raise ForgedError from error


def state_of(frame: ToolCall) -> str | None:
    """Return the state of ours that the client brings back, or None."""
    state = frame.params.get("requestState")
    return state if isinstance(state, str) and state.startswith(PREFIX) else None


def question(body: bytes) -> Mapping[str, Any] | None:
    """Return the server's result when it asks for input instead of answering, else None."""
    if b"input_required" not in body:
        return None
    result = msgspec.json.decode(body)
    return result if isinstance(result, dict) and result.get("resultType") == "input_required" else None
