"""Finds approvers by their identities, and decides whether they may review a call.

A directory is built from the config and replaced as a whole on reload. It knows stable ids only: a name, a Slack member
id, an e-mail address from a trusted proxy, the hash of a token.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping

from approvals.errors import NotAnApprover, OwnRequest
from approvals.model import Approver, HeldCall
from approvals.summaries import Summary


class Directory:
    """The approvers of one config. An identity that is unknown, or that two approvers share, finds None."""

    def __init__(self, approvers: Iterable[Approver]) -> None:
        self._by_name: Mapping[str, Approver] = {approver.name: approver for approver in approvers}

    @property
    def names(self) -> frozenset[str]:
        """The names of all approvers."""
        return frozenset(self._by_name)

    def by_name(self, name: str) -> Approver | None:
        """Return the approver with this name."""
        return self._by_name.get(name)

    def by_slack(self, member: str) -> Approver | None:
        """Return the approver with this Slack member id (`U...`)."""
        return self._find_one(lambda approver: approver.slack == member) if member else None

    def by_email(self, email: str) -> Approver | None:
        """Return the approver with this e-mail address, in any case."""
        wanted = email.casefold()
        return (
            self._find_one(lambda approver: (approver.email or "").casefold() == wanted) if wanted else None
        )

    def by_token(self, token: str) -> Approver | None:
        """Return the approver with this token; compares every hash, in constant time."""
        given = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        return self._find_one(lambda approver: hmac.compare_digest(approver.token_sha256 or "", given))

    def names_of_owner(self, owner: str | None) -> frozenset[str]:
        """Return the names of the approvers who own the agents of *owner*."""
        return frozenset(name for name, approver in self._by_name.items() if _is_owner(approver, owner))

    def _find_one(self, matches: Callable[[Approver], bool]) -> Approver | None:
        found = [approver for approver in self._by_name.values() if matches(approver)]
        return found[0] if len(found) == 1 else None

    def may_review(self, approver: Approver, call: HeldCall | Summary) -> None:
        """Raise `NotAnApprover` or `OwnRequest` when *approver* may not review *call* now."""
        if self._by_name.get(approver.name) != approver or approver.name not in call.terms.approvers:
            raise NotAnApprover
        if not call.terms.requester_may_approve and _is_owner(approver, call.call.owner):
            raise OwnRequest


def _is_owner(approver: Approver, owner: str | None) -> bool:
    mine = {name.casefold() for name in (approver.name, approver.email) if name}
    return owner is not None and owner.casefold() in mine
