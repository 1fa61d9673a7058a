"""The errors of approvals. The docstring of each class is its default message, which people read."""


class ApprovalError(Exception):
    """The approval could not be handled."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class Conflict(ApprovalError):
    """Someone else changed this call at the same time; read it again."""


class IllegalTransition(ApprovalError):
    """This call cannot change to that state."""


class UnknownCall(ApprovalError):
    """This call does not exist."""


class AlreadyDecided(ApprovalError):
    """This call was already decided."""


class StaleView(ApprovalError):
    """The held call differs from the one that you saw; open it again."""


class NotRevealed(ApprovalError):
    """Some values of this call are hidden. Reveal its exact text first: in the inbox, or with okayed show ID --exact."""


class NotAnApprover(ApprovalError):
    """You are not an approver for this call."""


class OwnRequest(ApprovalError):
    """You own the agent that made this call, so someone else must approve it."""


class ReasonNeeded(ApprovalError):
    """Give a reason for the denial; the agent reads it."""


class QuotaExceeded(ApprovalError):
    """Too many calls are already waiting for approval."""


class AgentBytesExceeded(QuotaExceeded):
    """The waiting calls of this agent are too large in total."""


class TotalBytesExceeded(QuotaExceeded):
    """The waiting calls of all agents are too large in total."""


class HourlyBytesExceeded(QuotaExceeded):
    """The calls of this agent that were held in the last hour are too large in total."""


class StoreError(ApprovalError):
    """The store cannot be used."""


class StoreTaken(StoreError):
    """Another gateway uses the store."""
