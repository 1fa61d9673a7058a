"""The seam to people: a channel shows cards and forwards reviews. It keeps no state and decides nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from approvals.model import CallId, State

if TYPE_CHECKING:
    from approvals.service import ApprovalService


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The view of a held call for a channel. Its text is safe to show: hidden characters escaped, secrets redacted."""

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
    #: The effect of the call and the harm that a mistake does, in two sentences.
    impact: str
    evidence: tuple[str, ...]
    rule: str
    reason: str
    #: The arguments as indented JSON. A channel that cannot show all of it must not offer Approve.
    arguments: str
    #: The server's address, on one line, or "".
    address: str = ""
    #: The other params that reach the server, as one line of JSON, or "".
    extra_params: str = ""
    #: One line that summarizes the client's own metadata, which reaches the server too, or "".
    client_metadata: str = ""
    #: Found in the arguments and the other params.
    hidden_characters: int
    redacted: int
    #: Bytes that would reach the server, and whether all of them are in the fields above.
    size: int
    whole: bool
    digest: str
    created_at: float
    expires_at: float
    #: When the call was decided, or None while it waits.
    decided_at: float | None
    needed: int
    #: (approver, answer, reason, via) in order.
    reviews: tuple[tuple[str, str, str, str], ...]
    attended: bool
    note: str
    #: Whether the server reported a failure.
    failed: bool = False
    #: One line about the end of the run, or "". The server's answer is for the agent and never on a card.
    result: str
    #: The URL of the call's page, or "" without an inbox URL.
    url: str
    #: The difference between the tool's definition and the accepted one, as lines, or "".
    changes: str = ""
    #: "Same call as hold_..., made 2 min earlier.", or "".
    twin: str

    @property
    def everything(self) -> str:
        """All the text that would reach the server."""
        more = "\n".join(f"also sent: {one}" for one in (self.extra_params, self.client_metadata) if one)
        return f"{self.arguments}\n\n{more}" if more else self.arguments


class Channel(Protocol):
    """A way to reach people. `post` and `update` raise on failure; the reconciler retries later."""

    name: str
    #: Whether a message is also updated when only the presence of a client changed.
    shows_presence: bool

    async def start(self, service: "ApprovalService") -> None:
        """Start to listen for reviews. Returns at once."""

    async def post(self, card: Card) -> str:
        """Post a new card and return the channel's reference to it."""

    async def update(self, ref: str, card: Card) -> str:
        """Update the message *ref* to *card*. Returns its reference, which is new if the card was posted again."""

    async def close(self) -> None:
        """Stop listening and close all connections."""
