"""The seam to people: a channel shows cards and passes reviews on. It holds no state and decides nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from approvals.model import CallId, State

if TYPE_CHECKING:
    from approvals.service import ApprovalService


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a channel shows of one held call, already made safe: hidden characters visible, secrets redacted."""

    id: CallId
    version: int
    state: State
    agent: str
    owner: str
    server: str
    tool: str
    category: str
    risk: str
    severity: str
    #: What could go wrong and how far it reaches, in one sentence.
    impact: str
    evidence: tuple[str, ...]
    rule: str
    reason: str
    #: The arguments as indented JSON; a channel that cannot show all of it must not offer Approve.
    arguments: str
    #: Where the server is, in one line, or "".
    address: str = ""
    #: What reaches the server beside them, as one line of JSON, or "".
    beside: str = ""
    #: One line that stands for the client's bookkeeping, which goes along, too, or "".
    bookkeeping: str = ""
    #: Of what stands above.
    hidden_characters: int
    redacted: int
    #: How many bytes would reach the server, and whether they all stand above: large ones are only begun.
    size: int
    whole: bool
    digest: str
    created_at: float
    expires_at: float
    #: When it was decided, or None while it waits.
    decided_at: float | None
    needed: int
    #: (approver, answer, reason, via) in order.
    reviews: tuple[tuple[str, str, str, str], ...]
    attended: bool
    note: str
    #: Whether the server reported a failure.
    failed: bool = False
    #: One line about how the run ended, or "". What the server answered is the agent's, and on no card.
    result: str
    #: The call's page in the inbox, or "" when no inbox URL is known.
    url: str
    #: How the tool's definition differs from the accepted one, as lines; "" when it does not.
    changes: str = ""
    #: "the same call ran 2 min ago (hold_...)", or "".
    twin: str

    @property
    def everything(self) -> str:
        """All that would reach the server."""
        along = "\n".join(f"sent along: {one}" for one in (self.beside, self.bookkeeping) if one)
        return f"{self.arguments}\n\n{along}" if along else self.arguments


class Channel(Protocol):
    """A way to reach people. `post` and `update` raise on failure; the reconciler tries again later."""

    name: str

    async def start(self, service: "ApprovalService") -> None:
        """Begin to listen for answers; returns at once."""

    async def post(self, card: Card) -> str:
        """Show a new card and return the channel's reference to it."""

    async def update(self, ref: str, card: Card) -> str:
        """Bring the message *ref* to what *card* says; returns its reference, another one when it was posted anew."""

    async def close(self) -> None:
        """Stop listening and let go of connections."""
