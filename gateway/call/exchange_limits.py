"""How many exchanges each agent has with servers at this moment, so that no agent takes what the others need.

A held call that waits for people is no exchange: nothing of it reaches a server before it runs.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

from gateway.errors import GatewayError
from gateway.upstreams.reply import Reply


class Kind(Enum):
    """What an exchange does."""

    REQUEST = "asks the server for an answer"
    STREAM = "listens for as long as the client likes"
    #: A notification, an answer to a server's question, the end of a session. Counted apart from requests:
    #: a request that waits for such a message could never end if the request stood in its way.
    MESSAGE = "tells the server something"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeShares:
    """The most exchanges of each kind that one agent may have at once."""

    requests: int = 64
    streams: int = 256
    #: Bytes of request bodies.
    bodies: int = 32 << 20

    def of(self, kind: Kind) -> int:
        """Return the most of one kind; messages have as many as requests."""
        return self.streams if kind is Kind.STREAM else self.requests


class TooManyExchangesError(GatewayError):
    """Too many of your requests are running; nothing was sent. Try again when one of them has ended."""

    status: ClassVar[int] = 429
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class TooManyBytesError(GatewayError):
    """Too many large requests of yours are being read; this one was not. Try again when one of them was answered."""

    status: ClassVar[int] = 429
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class Bodies:
    """Counts the bytes of request bodies that are being read and judged, by agent.

    To judge 4 MB takes some 50 ms, in which nobody else is served.
    """

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, agent: str, size: int) -> Iterator[None]:
        """Count a body of *size* bytes while the context is open; raises `TooManyBytesError`.

        One body alone is always let in.
        """
        if self._open[agent] and self._open[agent] + size > self._most():
            raise TooManyBytesError
        self._open[agent] += size
        try:
            yield
        finally:
            self._open[agent] -= size
            if not self._open[agent]:
                del self._open[agent]


class ExchangeLimits:
    """Counts the exchanges of all agents."""

    def __init__(self, shares: Callable[[], ExchangeShares]) -> None:
        self._shares = shares
        self._open: Counter[tuple[str, Kind]] = Counter()

    async def one(self, agent: str, kind: Kind, work: Callable[[], Awaitable[Reply]]) -> Reply:
        """Do *work*, which is one exchange. It counts until its reply is closed; raises `TooManyExchangesError`."""
        if self._open[agent, kind] >= self._shares().of(kind):
            raise TooManyExchangesError
        with ExitStack() as counted:
            self._open[agent, kind] += 1
            counted.callback(self._ended, agent, kind)
            reply = await work()
            counted.callback(reply.close)
            return replace(reply, close=counted.pop_all().close)

    def _ended(self, agent: str, kind: Kind) -> None:
        self._open[agent, kind] -= 1
        if not self._open[agent, kind]:
            del self._open[agent, kind]
