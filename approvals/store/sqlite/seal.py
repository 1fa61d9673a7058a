"""Rows under a seal: a held call, a login, a session that was changed in the file, by hand or by a bad disk, is not read.

Without a key the seal finds damage. With a key that lies elsewhere it also finds a forger, who could otherwise write
an approval, or a login to approve by, into the file.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import msgspec

from approvals.errors import StoreError
from approvals.model import HeldCall
from approvals.summaries import Summary, summary

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(HeldCall).decode
_decode_summary = msgspec.json.Decoder(Summary).decode
#: Stands before a summary in its seal, so that no other row's seal fits one.
_SUMMARY = b"summary "
_NOT_WRITTEN = "A held call is not what was written to the store, or was written under another key."


@dataclass(frozen=True, slots=True)
class Seal:
    """Seals rows, and opens what it sealed."""

    key: bytes

    def row(self, call: HeldCall) -> tuple[Any, ...]:
        """Return the values of the columns that change with the call; raises `StoreError` when it is no JSON."""
        try:
            body = _encode(call)
        except (TypeError, ValueError) as error:
            raise StoreError(f"The call {call.id} cannot be written: {error}.") from error
        return call.version, call.state, call.digest, call.expires_at, call.settled_at, body, self._of(body)

    def summary_row(self, call: HeldCall) -> tuple[Any, ...]:
        """Return the values of the columns of a call's summary that change with it."""
        shown = _encode(summary(call))
        return call.state, shown, self._of(_SUMMARY + shown)

    def summary(self, shown: bytes, seal: bytes) -> Summary:
        """Return the summary; raises `StoreError` when it is not the one that was sealed."""
        if not hmac.compare_digest(seal, self._of(_SUMMARY + shown)):
            raise StoreError(_NOT_WRITTEN)
        return _decode_summary(shown)

    def call(self, body: bytes, seal: bytes) -> HeldCall:
        """Return the call; raises `StoreError` when it is not the one that was sealed."""
        if not hmac.compare_digest(seal, self._of(body)):
            raise StoreError(_NOT_WRITTEN)
        return _decode(body)

    def sealed(self, table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a row of *table* with its seal behind it."""
        return (*row, self._of(_encode((table, *row))))

    def opened(self, table: str, row: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """Return the row without its seal; None when there is none, or it is not the one that was sealed."""
        if row is None:
            return None
        *values, seal = row
        return tuple(values) if hmac.compare_digest(seal, self._of(_encode((table, *values)))) else None

    def _of(self, body: bytes) -> bytes:
        return hmac.digest(self.key, body, "sha256") if self.key else hashlib.sha256(body).digest()
