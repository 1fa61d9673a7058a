"""The sealed requestState that a client of 2026-07-28 returns with the next round of a call (MCP, `input_required`).

It contains the id of the held call, the round, and the state of a server that requested input. Clients can neither
read nor change it. Its agent and its single use are checked against the store.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from secrets import token_bytes
from typing import Any

import msgspec

from gateway.wire.frames import CallFrame

#: The prefixes of the gateway's states: the current one, and that of earlier versions. Other states are the server's.
PREFIX = "okayed."
PREFIXES = (PREFIX, "holdpoint.")
#: The format of the SDK's codec (`mcp.server.request_state`), so that both can open it. Importing that codec would take
#: half a second and 36 MB. After the version, in base64url: key fingerprint, nonce, AES-256-GCM ciphertext.
VERSION = b"v1."
KEY_INFO = b"mcp/request-state/v1/aes-256-gcm"
FINGERPRINT_INFO = b"mcp/request-state/v1/kid:"
FINGERPRINT, NONCE = 4, 12
BODY = FINGERPRINT + NONCE
#: The key of the gateway's own entry among the inputRequests.
QUESTION = "okayed"


class RequestState(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a sealed state. Clients keep states across restarts, so the member names must not change."""

    call: str
    round: int = 0
    #: Whether the server requested input, and the server's own state, if any.
    asked: bool = False
    state: str | None = None


class InvalidStateError(Exception):
    """Invalid or expired requestState."""


class StateSealer:
    """Seals and opens states with AES-256-GCM; the first key seals, every key opens."""

    def __init__(self, keys: list[bytes]) -> None:
        """*keys* are secrets of at least 32 bytes."""
        # Imported late: most gateways seldom need it.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        derived = [_derive_key(key) for key in keys]
        self._ciphers = {_fingerprint(key): AESGCM(key) for key in derived}
        self._first = _fingerprint(derived[0])

    def seal(self, state: RequestState) -> str:
        """Return the sealed state for the client."""
        nonce = token_bytes(NONCE)
        cipher = self._ciphers[self._first]
        sealed = cipher.encrypt(nonce, msgspec.json.encode(state), VERSION + self._first)
        return PREFIX + VERSION.decode() + _encode(self._first + nonce + sealed)

    def open(self, state: str) -> RequestState:
        """Return the content of a sealed state; raises `InvalidStateError`."""
        from cryptography.exceptions import InvalidTag

        try:
            return msgspec.json.decode(self._decrypt(state), type=RequestState)
        except (ValueError, KeyError, InvalidTag, msgspec.MsgspecError) as error:
            raise InvalidStateError from error

    def _decrypt(self, state: str) -> bytes:
        prefix = next((known for known in PREFIXES if state.startswith(known)), "")
        raw = _decode(state.removeprefix(prefix + VERSION.decode()))
        fingerprint, nonce, sealed = raw[:FINGERPRINT], raw[FINGERPRINT:BODY], raw[BODY:]
        return self._ciphers[fingerprint].decrypt(nonce, sealed, VERSION + fingerprint)


def _derive_key(secret: bytes) -> bytes:
    """Return the AES key of a secret."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=None, info=KEY_INFO).derive(secret)


def _fingerprint(key: bytes) -> bytes:
    """Return the key's fingerprint in a state; it reveals nothing of the key."""
    return sha256(FINGERPRINT_INFO + key).digest()[:FINGERPRINT]


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """Decode *text*; raises `ValueError` unless it is the canonical encoding."""
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(raw) != text:
        raise ValueError("not the canonical encoding of these bytes")
    return raw


def own_state(frame: CallFrame) -> str | None:
    """Return the gateway's own state in a request, or None."""
    state = frame.params.get("requestState")
    return state if isinstance(state, str) and state.startswith(PREFIXES) else None


def input_required_result(body: bytes) -> Mapping[str, Any] | None:
    """Return the server's result if it is `input_required`, else None."""
    if b"input_required" not in body:
        return None
    result = msgspec.json.decode(body)
    return result if isinstance(result, dict) and result.get("resultType") == "input_required" else None
