"""Signs webhooks according to the Standard Webhooks specification.

The headers are `webhook-id`, `webhook-timestamp`, and `webhook-signature: v1,` with the base64 of HMAC-SHA-256 over
`id.timestamp.body`.
"""

import base64
import binascii
import hashlib
import hmac


def decode_key(secret: str) -> bytes:
    """Return the signing key: the decoded base64 after `whsec_`, or the bytes of the secret."""
    try:
        return (
            base64.b64decode(secret.removeprefix("whsec_"), validate=True)
            if secret.startswith("whsec_")
            else secret.encode()
        )
    except binascii.Error:
        return secret.encode()


def sign(message_id: str, at: float, body: bytes, secret: bytes) -> dict[str, str]:
    """Sign a webhook and return its headers."""
    stamp = str(int(at))
    content = b".".join((message_id.encode(), stamp.encode(), body))
    signature = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature}",
    }
