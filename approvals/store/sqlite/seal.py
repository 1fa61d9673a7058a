"""Seals on rows, so that a held call, login or session that was changed in the file is rejected.

Without a key, the seal detects damage. With a key that is stored elsewhere, it also detects forgery: otherwise somebody
who can write the file could add an approval, or a login to approve with.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import msgspec

from approvals.errors import StoreError
from approvals.model import HeldCall
from approvals.summaries import Summary, summarize

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(HeldCall).decode
_decode_summary = msgspec.json.Decoder(Summary).decode
#: Prefixed to a summary before it is sealed, so that the seal of another row does not fit it.
_SUMMARY = b"summary "
_CHANGED = "A held call was changed in the store, or was written under another key."


@dataclass(frozen=True, slots=True)
class Seal:
    """Seals rows, and opens the rows that it sealed."""

    key: bytes

    def columns(self, call: HeldCall) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the columns of a call and of its summary that change with it.

        Raises `StoreError` when the call cannot be encoded as JSON.
        """
        try:
            body, summary = _encode(call), _encode(summarize(call))
        except (TypeError, ValueError) as error:
            raise StoreError(f"The call {call.id} cannot be written: {error}.") from error
        state = call.state.value
        return (
            (call.version, state, call.digest, call.expires_at, call.settled_at, body, self._of(body)),
            (state, int(call.task), summary, self._of(_SUMMARY + summary)),
        )

    def open_summary(self, body: bytes, seal: bytes) -> Summary:
        """Return the summary; raises `StoreError` when it was changed."""
        if not hmac.compare_digest(seal, self._of(_SUMMARY + body)):
            raise StoreError(_CHANGED)
        return _decode_summary(body)

    def open_call(self, body: bytes, seal: bytes) -> HeldCall:
        """Return the call; raises `StoreError` when it was changed."""
        if not hmac.compare_digest(seal, self._of(body)):
            raise StoreError(_CHANGED)
        return _decode(body)

    def seal_row(self, table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a row of *table* with its seal as the last value."""
        return (*row, self._of(_encode((table, *row))))

    def open_row(self, table: str, row: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """Return the row without its seal; None when the row is None or was changed."""
        if row is None:
            return None
        *values, seal = row
        return tuple(values) if hmac.compare_digest(seal, self._of(_encode((table, *values)))) else None

    def _of(self, body: bytes) -> bytes:
        return hmac.digest(self.key, body, "sha256") if self.key else hashlib.sha256(body).digest()
