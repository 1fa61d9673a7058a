"""The logs of a run while it goes on; `history_checks` compares them with the promises."""

from collections.abc import Awaitable, Callable, Sequence

from approvals.audit import Checkpoint
from approvals.model import AuditEvent, Decision, HeldCall
from approvals.store import CallStore
from history import Answer, GivenReview, History, Kill, ReceivedCall, Request

PAGE = 10_000
#: Reads the head of the trail as it is in the store.
ReadHead = Callable[[], Awaitable[Checkpoint | None]]


class RunLog:
    """The logs of clients, approvers and servers, with one order."""

    def __init__(self, read_head: ReadHead) -> None:
        self.read_head = read_head
        self.requests: list[Request] = []
        self.reviews: list[GivenReview] = []
        self.received: list[ReceivedCall] = []
        self.kills: list[Kill] = []
        self.heads: list[Checkpoint] = []
        self.acknowledged: list[tuple[str, int]] = []
        #: The last place in the order of the run.
        self.place = 0

    def next_place(self) -> int:
        """Return the next place in the order of the run."""
        self.place += 1
        return self.place

    async def _head(self) -> int:
        head = await self.read_head()
        return head.seq if head else 0

    async def add_received(self, server: str, tool: str, arguments: bytes, *, cut: bool = False) -> None:
        """Log a call that a server receives."""
        head, at = await self._head(), self.next_place()
        self.received.append(
            ReceivedCall(server=server, tool=tool, arguments=arguments, at=at, head=head, cut=cut)
        )

    async def add_review(self, call: str, approver: str, decision: Decision, *, acknowledged: bool) -> None:
        """Log the answer of an approver."""
        head = await self._head() if acknowledged else None
        self.reviews.append(
            GivenReview(call=call, approver=approver, decision=decision, acknowledged=acknowledged, head=head)
        )

    def add_request(
        self, agent: str, server: str, tool: str, arguments: bytes, *, sent: int, answer: Answer, text: str = "", call: str = "",
        expires_at: float | None = None,
    ) -> None:  # fmt: skip
        """Log a request of a client when its answer has come, or its connection broke."""
        self.requests.append(
            Request(
                agent=agent, server=server, tool=tool, arguments=arguments, sent=sent, answered=self.next_place(),
                answer=answer, text=text, call=call, expires_at=expires_at,
            )
        )  # fmt: skip

    async def add_kill(self, replica: str = "") -> None:
        """Log the end or suspension of a gateway, once nothing of it can reach the store."""
        head = await self.read_head()
        self.heads += [head] if head else []
        self.kills.append(Kill(head=head.seq if head else 0, replica=replica))

    def history(
        self, calls: Sequence[HeldCall], events: Sequence[AuditEvent], *, chain_key: bytes = b"", free: frozenset[str] = frozenset(),
    ) -> History:  # fmt: skip
        """Return the whole history, with the calls and the trail at the end."""
        return History(
            requests=self.requests, reviews=self.reviews, received=self.received, kills=self.kills, heads=self.heads,
            acknowledged=self.acknowledged, calls=calls, events=events, chain_key=chain_key, free=free,
        )  # fmt: skip


async def all_calls(store: CallStore) -> Sequence[HeldCall]:
    """Return every held call of a store, page by page."""
    page = await store.select(limit=PAGE)
    calls = [*page.items]
    while page.next is not None:
        page = await store.select(limit=PAGE, before=page.next)
        calls += page.items
    return calls
