"""A client's own bookkeeping in `_meta`: to which of its calls, turns and sessions a request belongs (PURE).

Codex and Claude Code send it with every call. It says nothing of what the call does, so people see one line of it, and
the rest on demand. It is part of what is approved all the same. What could mislead is never folded: a large one, one
with hidden characters, one with a secret in it. That is shown like the arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from approvals.model import ToolCall
from approvals.redact import RedactedText, redact
from approvals.safetext import ascii_name, count_hidden, one_line

#: Members of `_meta`, as codex-mcp-client 0.169 spells them.
NAMES = frozenset({"callId", "itemId", "sessionId", "threadId", "windowId", "x-codex-turn-metadata"})
#: What names begin with that are Claude Code's.
PREFIX = "claudecode/"
#: Bytes of bookkeeping that are folded at most, and bytes that are looked at for it.
MOST = 4096
READ = 64 * 1024
#: Characters of the line that stands for it.
LINE = 300


@dataclass(frozen=True, slots=True)
class Parted:
    """The members sent along with a call, as JSON objects; b"" for none. *shown* is displayed, *folded* is one line."""

    shown: bytes
    folded: bytes = b""

    @property
    def line(self) -> str:
        """The one line that stands for what is folded, or ""."""
        names = ", ".join(map(ascii_name, _members(self.folded)))
        told = f"{len(self.folded)} bytes of the client's bookkeeping: {names}"
        return one_line(told, LINE) if self.folded else ""

    @property
    def text(self) -> str:
        """All that is folded, as one line of JSON, or ""."""
        return _read(self.folded).text if self.folded else ""


def parted(beside: bytes) -> Parted:
    """Part what goes along with a call (`ToolCall.extra_params`)."""
    if len(beside) > READ:
        return Parted(beside)
    members = _members(beside)
    meta = _members(members.get("_meta", b""))
    folded = {name: raw for name, raw in meta.items() if name in NAMES or name.startswith(PREFIX)}
    if not folded or not _may_be_folded(packed := msgspec.json.encode(folded)):
        return Parted(beside)
    left = _packed({name: raw for name, raw in meta.items() if name not in folded})
    rest = {**members, "_meta": msgspec.Raw(left)}
    return Parted(_packed({name: raw for name, raw in rest.items() if bytes(raw)}), packed)


def hidden_values(call: ToolCall) -> int:
    """Count the values that look like secrets, which people see only after they ask for the exact text."""
    return sum(redact(part).count for part in (call.arguments, parted(call.extra_params).shown) if part)


def _may_be_folded(packed: bytes) -> bool:
    if len(packed) > MOST:
        return False
    read = _read(packed)
    return not read.count and not count_hidden(read.text)


def _read(packed: bytes) -> RedactedText:
    return redact(packed, flat=True, ids=True)


def _packed(members: Mapping[str, msgspec.Raw]) -> bytes:
    return msgspec.json.encode(members) if members else b""


def _members(packed: bytes) -> Mapping[str, msgspec.Raw]:
    """Return the members of a JSON object as they are spelt; none of anything else."""
    try:
        return msgspec.json.decode(packed, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return {}
