"""One-time codes, which sign an approver in at `/login/once/{code}` of any inbox on the same store."""

import hashlib
import secrets

from approvals.model import Approver, OneTimeCode
from approvals.service import ApprovalService
from approvals.store import LoginStore

#: Seconds until a code expires.
CODE_LIFE = 600.0


async def create_code(service: ApprovalService, logins: LoginStore, approver: Approver) -> str:
    """Return a code that signs *approver* in once."""
    now, code = service.clock(), secrets.token_urlsafe(24)
    await logins.save_code(
        OneTimeCode(
            id_sha256=hash_secret(code), approver=approver.name, created_at=now, expires_at=now + CODE_LIFE
        )
    )
    return code


async def take_code(service: ApprovalService, logins: LoginStore, given: str) -> Approver | None:
    """Use up a code and return its approver; None if it is wrong, expired or used."""
    code = await logins.take_code(hash_secret(given))
    if code is None or service.clock() >= code.expires_at:
        return None
    return service.directory.by_name(code.approver)


def hash_secret(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal: the store keeps no secret itself."""
    return hashlib.sha256(secret.encode()).hexdigest()
