"""Digests: what makes two calls the same, and what a person has looked at.

`key` finds duplicates: same agent, server, tool and arguments, where the order of members and white space do
not count but the spelling of every number does (1 and 1.0 differ). `digest` binds a review to the exact bytes.
"""

import hashlib
import json
from typing import Any

from approvals.model import ToolCall


def sha256(data: bytes) -> str:
    """Return the hex SHA-256 of *data*."""
    return hashlib.sha256(data).hexdigest()


class _Number(str):
    """A number as it was spelt."""

    __slots__ = ()


def canonical(arguments: bytes) -> str:
    """Return *arguments* with members sorted and numbers kept as spelt; for comparing only, never for sending."""
    value = json.loads(arguments, parse_int=_Number, parse_float=_Number)
    return json.dumps(_tagged(value), sort_keys=True, separators=(",", ":"))


def _tagged(value: Any) -> Any:
    match value:
        case dict():
            return {name: _tagged(member) for name, member in value.items()}
        case list():
            return [_tagged(item) for item in value]
        case _Number():
            return f"n{value}"
        case str():
            return f"s{value}"
        case _:
            return value


def key(call: ToolCall, more: bytes = b"{}") -> str:
    """Return what a call asked again shares with the first; *more* is a JSON object that has to be the same, too."""
    parts = (call.agent, call.server, call.tool, canonical(call.arguments))
    also = () if more == b"{}" else (canonical(more),)
    return sha256("\x00".join([*parts, *also]).encode())


def digest(call: ToolCall, definition: str = "", identity: str = "") -> str:
    """Return the digest of what an approver is shown: the call's exact bytes, the tool's definition, the server's identity."""
    parts = (call.agent, call.server, call.tool, definition, *([identity] if identity else []))
    return sha256(
        b"\x00".join(
            [json.dumps(parts).encode(), call.arguments, *([call.extra_params] if call.extra_params else [])]
        )
    )
