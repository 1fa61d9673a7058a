"""A client's own correlation data in `_meta`: the ids of its calls, turns and sessions (PURE).

Codex and Claude Code send it with every call. It does not change the effect of a call, so people see it as one line and
can unfold the rest. It is still part of the approved call. Data that could mislead is never folded: large data, hidden
characters, secrets. Such data is shown like the arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from approvals.model import ToolCall
from approvals.redact import RedactedText, redact
from approvals.safetext import ascii_name, count_hidden, one_line

#: The members of `_meta` that codex-mcp-client 0.169 sends.
CODEX_NAMES = frozenset({"callId", "itemId", "sessionId", "threadId", "windowId", "x-codex-turn-metadata"})
#: The prefix of Claude Code's members.
CLAUDE_CODE_PREFIX = "claudecode/"
#: The most bytes that are folded, and the most that are searched for correlation data.
MAX_FOLDED = 4096
MAX_READ = 64 * 1024
#: The most characters of the summary line.
MAX_LINE = 300


@dataclass(frozen=True, slots=True)
class SplitParams:
    """A call's extra params in two JSON objects, b"" for an empty one: *shown* in full, *folded* into one line."""

    shown: bytes
    folded: bytes = b""

    @property
    def line(self) -> str:
        """One line that summarizes the folded data, or ""."""
        names = ", ".join(map(ascii_name, _members(self.folded)))
        return (
            one_line(f"{len(self.folded)} bytes of client metadata: {names}", MAX_LINE) if self.folded else ""
        )

    @property
    def text(self) -> str:
        """The folded data as one line of JSON, or ""."""
        return _redact(self.folded).text if self.folded else ""


def split_params(extra_params: bytes) -> SplitParams:
    """Separate the client's correlation data from the other params (`ToolCall.extra_params`)."""
    if len(extra_params) > MAX_READ:
        return SplitParams(extra_params)
    members = _members(extra_params)
    meta = _members(members.get("_meta", b""))
    folded = {
        name: raw for name, raw in meta.items() if name in CODEX_NAMES or name.startswith(CLAUDE_CODE_PREFIX)
    }
    if not folded or not _can_fold(encoded := msgspec.json.encode(folded)):
        return SplitParams(extra_params)
    other_meta = _encode({name: raw for name, raw in meta.items() if name not in folded})
    shown = {**members, "_meta": msgspec.Raw(other_meta)}
    return SplitParams(_encode({name: raw for name, raw in shown.items() if bytes(raw)}), encoded)


def count_secrets(call: ToolCall) -> int:
    """Return the number of values that look like secrets; people see them only after a reveal."""
    return sum(redact(part).count for part in (call.arguments, split_params(call.extra_params).shown) if part)


def _can_fold(data: bytes) -> bool:
    if len(data) > MAX_FOLDED:
        return False
    redacted = _redact(data)
    return not redacted.count and not count_hidden(redacted.text)


def _redact(data: bytes) -> RedactedText:
    return redact(data, flat=True, ids=True)


def _encode(members: Mapping[str, msgspec.Raw]) -> bytes:
    return msgspec.json.encode(members) if members else b""


def _members(data: bytes) -> Mapping[str, msgspec.Raw]:
    """Return the members of a JSON object as they are spelled; an empty mapping for anything else."""
    try:
        return msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return {}
