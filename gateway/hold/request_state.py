"""The sealed state that a client of 2026-07-28 carries between the rounds of one call (MCP, `input_required`).

It names the held call and the round, and wraps the state of a server that asked for input itself. A client can neither read
nor change it; whose it is, and that it is used once, is checked against the store.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from secrets import token_bytes
from typing import Any

import msgspec

from gateway.wire.frames import CallFrame

#: What every state of ours begins with; a state that does not is the server's.
PREFIX = "okayed."
#: The format of the SDK's own codec (`mcp.server.request_state`), which takes half a second and 36 MB to load: the version,
#: and in base64url the fingerprint of the key, the nonce and what AES-256-GCM sealed. Either opens what the other sealed.
VERSION = b"v1."
KEY_INFO = b"mcp/request-state/v1/aes-256-gcm"
FINGERPRINT_INFO = b"mcp/request-state/v1/kid:"
FINGERPRINT, NONCE = 4, 12
BODY = FINGERPRINT + NONCE
#: The key of our own question among the input requests.
QUESTION = "okayed"


class RequestState(msgspec.Struct, frozen=True, kw_only=True):
    """What the state says."""

    call: str
    round: int = 0
    #: Whether the server asked for input, and the state that it gave, if any.
    asked: bool = False
    state: str | None = None


class InvalidStateError(Exception):
    """Invalid or expired requestState."""


class StateSealer:
    """Seals and opens tickets with AES-256-GCM; the first key seals, every key opens."""

    def __init__(self, keys: list[bytes]) -> None:
        """*keys* are secrets of 32 bytes at least."""
        # Most gateways need it seldom.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        derived = [_derive_key(key) for key in keys]
        self._ciphers = {_fingerprint(key): AESGCM(key) for key in derived}
        self._first = _fingerprint(derived[0])

    def seal(self, ticket: RequestState) -> str:
        """Return the state to give to the client."""
        nonce = token_bytes(NONCE)
        cipher = self._ciphers[self._first]
        sealed = cipher.encrypt(nonce, msgspec.json.encode(ticket), VERSION + self._first)
        return PREFIX + VERSION.decode() + _encode(self._first + nonce + sealed)

    def open(self, state: str) -> RequestState:
        """Return what was sealed, or raise `ForgedError`."""
        from cryptography.exceptions import InvalidTag

        try:
            return msgspec.json.decode(self._unsealed(state), type=RequestState)
        except (ValueError, KeyError, InvalidTag, msgspec.MsgspecError) as error:
            raise InvalidStateError from error

    def _unsealed(self, state: str) -> bytes:
        start = PREFIX + VERSION.decode()
        raw = _decode(state.removeprefix(start))
        fingerprint, nonce, sealed = raw[:FINGERPRINT], raw[FINGERPRINT:BODY], raw[BODY:]
        return self._ciphers[fingerprint].decrypt(nonce, sealed, VERSION + fingerprint)


def _derive_key(secret: bytes) -> bytes:
    """Return the AES key of a secret."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=None, info=KEY_INFO).derive(secret)


def _fingerprint(key: bytes) -> bytes:
    """Return what a state names its key by; it tells nothing of the key."""
    return sha256(FINGERPRINT_INFO + key).digest()[:FINGERPRINT]


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """Return what *text* encodes; raises `ValueError` when it is not exactly what `_encoded` makes of it."""
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(raw) != text:
        raise ValueError("not the one encoding of these bytes")
    return raw


def own_state(frame: CallFrame) -> str | None:
    """Return the state of ours that the client brings back, or None."""
    state = frame.params.get("requestState")
    return state if isinstance(state, str) and state.startswith(PREFIX) else None


def input_required_result(body: bytes) -> Mapping[str, Any] | None:
    """Return the server's result when it asks for input instead of answering, else None."""
    if b"input_required" not in body:
        return None
    result = msgspec.json.decode(body)
    return result if isinstance(result, dict) and result.get("resultType") == "input_required" else None
