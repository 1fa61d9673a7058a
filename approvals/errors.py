"""What can go wrong in an approval. Each class's docstring is its default message, told to people as it is."""


class ApprovalError(Exception):
    """The approval could not be handled."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class Conflict(ApprovalError):
    """Somebody else changed this call at the same moment; read it again."""


class IllegalTransition(ApprovalError):
    """This call cannot go from its state to that one."""


class UnknownCall(ApprovalError):
    """There is no such call."""


class AlreadyDecided(ApprovalError):
    """This call was already decided."""


class StaleView(ApprovalError):
    """What you looked at is not what is held now; open the call again."""


class NotRevealed(ApprovalError):
    """Some values of this call are hidden. Look at its exact text first: in the inbox, or with okayed show ID --exact."""


class NotAnApprover(ApprovalError):
    """You are not an approver for this call."""


class OwnRequest(ApprovalError):
    """You own the agent that asks for this, so someone else must approve."""


class ReasonNeeded(ApprovalError):
    """Say why you deny it: the agent reads the reason."""


class TooMany(ApprovalError):
    """Too many calls already wait for a person."""


class TooMuchOfOne(TooMany):
    """The waiting calls of this agent take too much room."""


class TooMuchOfAll(TooMany):
    """The waiting calls of all agents take too much room."""


class TooMuchInAnHour(TooMany):
    """The calls of this agent that were held within an hour take too much room."""


class StoreError(ApprovalError):
    """The store cannot be used."""


class StoreTaken(StoreError):
    """Another gateway uses the store already."""
