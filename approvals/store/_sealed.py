"""A held call as the bytes of its row, under a seal: what was changed in the file, by hand or by a bad disk, is not read.

Without a key the seal finds damage. With a key that lies elsewhere it also finds a forger, who could otherwise write
an approval into the file.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import msgspec

from approvals.errors import StoreError
from approvals.model import HeldCall

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(HeldCall).decode


@dataclass(frozen=True, slots=True)
class Seal:
    """Seals calls, and opens what it sealed."""

    key: bytes

    def row(self, call: HeldCall) -> tuple[Any, ...]:
        """Return the values of the columns that change with the call; raises `StoreError` when it is no JSON."""
        try:
            body = _encode(call)
        except (TypeError, ValueError) as error:
            raise StoreError(f"The call {call.id} cannot be written: {error}.") from error
        return call.version, call.state, call.digest, call.expires_at, call.settled_at, body, self._of(body)

    def call(self, body: bytes, seal: bytes) -> HeldCall:
        """Return the call; raises `StoreError` when it is not the one that was sealed."""
        if not hmac.compare_digest(seal, self._of(body)):
            raise StoreError(
                "A held call is not what was written to the store, or was written under another key."
            )
        return _decode(body)

    def _of(self, body: bytes) -> bytes:
        return hmac.digest(self.key, body, "sha256") if self.key else hashlib.sha256(body).digest()
