"""Who is this approver, and may they review this call?

A directory is built from the config and replaced whole when the config changes. It answers from stable ids
only: a name, a Slack member id, an e-mail from a trusted proxy, the hash of a token. Unknown is nobody.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping

from approvals.errors import NotAnApprover, OwnRequest
from approvals.model import Approver, HeldCall
from approvals.summaries import Summary


class Directory:
    """The approvers of one config, found by each of their identities."""

    def __init__(self, approvers: Iterable[Approver]) -> None:
        self._by_name: Mapping[str, Approver] = {approver.name: approver for approver in approvers}

    @property
    def names(self) -> frozenset[str]:
        """The names of all approvers."""
        return frozenset(self._by_name)

    def by_name(self, name: str) -> Approver | None:
        """Return the approver of this name."""
        return self._by_name.get(name)

    def by_slack(self, member: str) -> Approver | None:
        """Return the approver with this Slack member id (`U...`)."""
        return self._one(lambda approver: approver.slack == member) if member else None

    def by_email(self, email: str) -> Approver | None:
        """Return the approver with this e-mail address; case does not count."""
        wanted = email.casefold()
        return self._one(lambda approver: (approver.email or "").casefold() == wanted) if wanted else None

    def by_token(self, token: str) -> Approver | None:
        """Return the approver whose token this is; every hash is compared, in constant time."""
        given = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        return self._one(lambda approver: hmac.compare_digest(approver.token_sha256 or "", given))

    def of_owner(self, owner: str | None) -> frozenset[str]:
        """Return the names of the approvers who are the person behind an agent."""
        return frozenset(name for name, approver in self._by_name.items() if _owns(approver, owner))

    def _one(self, fits: Callable[[Approver], bool]) -> Approver | None:
        found = [approver for approver in self._by_name.values() if fits(approver)]
        return found[0] if len(found) == 1 else None

    def may_review(self, approver: Approver, call: HeldCall | Summary) -> None:
        """Raise `NotAnApprover` or `OwnRequest` when *approver* may not review *call* now."""
        if self._by_name.get(approver.name) != approver or approver.name not in call.terms.approvers:
            raise NotAnApprover
        if not call.terms.requester_may_approve and _owns(approver, call.call.owner):
            raise OwnRequest


def _owns(approver: Approver, owner: str | None) -> bool:
    mine = {name.casefold() for name in (approver.name, approver.email) if name}
    return owner is not None and owner.casefold() in mine
