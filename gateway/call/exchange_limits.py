"""Limits on the exchanges and request bodies that each agent has in progress, so that one agent cannot starve others.

A held call is not an exchange until it runs.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from msgspec.structs import replace

from gateway.errors import GatewayError
from gateway.upstreams.reply import Reply


class Kind(Enum):
    """The kinds of exchanges. Each has its own count."""

    REQUEST = "a request that the server answers"
    STREAM = "an event stream that stays open"
    #: A notification, a response to the server, the end of a session. A running request may wait for such a message,
    #: so it must not count against requests.
    MESSAGE = "a message without an answer"

    # Enum computes the hash of a member in Python, and each call needs it several times.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeShares:
    """The most exchanges of each kind that one agent may have in progress."""

    requests: int = 64
    streams: int = 256
    #: The most bytes of request bodies that are being read and judged.
    bodies: int = 32 << 20

    def of(self, kind: Kind) -> int:
        """Return the limit of one kind; messages have that of requests."""
        return self.streams if kind is Kind.STREAM else self.requests


class TooManyExchangesError(GatewayError):
    """Too many of your requests are running; nothing was sent. Try again when one of them has ended."""

    status: ClassVar[int] = 429
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class TooManyBytesError(GatewayError):
    """Too many of your large requests are being read; this one was not. Try again when one of them is answered."""

    status: ClassVar[int] = 429
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class BodyLimits:
    """Limits the bytes of request bodies in progress, by agent.

    Judging 4 MB takes about 50 ms, in which no other request is served.
    """

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._open: dict[str, int] = {}

    @contextmanager
    def reserve(self, agent: str, size: int) -> Iterator[None]:
        """Count a body of *size* bytes while the context is open; raises `TooManyBytesError` at the limit."""
        self.begin(agent, size)
        try:
            yield
        finally:
            self.end(agent, size)

    def begin(self, agent: str, size: int) -> None:
        """Count a body of *size* bytes until `end`; raises `TooManyBytesError` at the limit.

        An agent's only body is always accepted.
        """
        others = self._open.get(agent, 0)
        if others and others + size > self._most():
            raise TooManyBytesError
        self._open[agent] = others + size

    def end(self, agent: str, size: int) -> None:
        """Stop counting a body."""
        left = self._open.get(agent, 0) - size
        if left:
            self._open[agent] = left
        else:
            self._open.pop(agent, None)


class ExchangeLimits:
    """Limits the exchanges in progress, by agent and kind."""

    def __init__(self, shares: Callable[[], ExchangeShares]) -> None:
        self._shares = shares
        self._open: dict[tuple[str, Kind], int] = {}

    async def run(self, agent: str, kind: Kind, work: Callable[[], Awaitable[Reply]]) -> Reply:
        """Do one exchange, and count it until its reply is closed; raises `TooManyExchangesError` at the limit."""
        if (exchange := self.begin(agent, kind)) is None:
            raise TooManyExchangesError
        try:
            return exchange.counted_until_closed(await work())
        except BaseException:
            exchange.end()
            raise

    def begin(self, agent: str, kind: Kind) -> "CountedExchange | None":
        """Count one exchange until it ends; None at the limit."""
        exchanges = (agent, kind)
        others = self._open.get(exchanges, 0)
        if others >= self._shares().of(kind):
            return None
        self._open[exchanges] = others + 1
        return CountedExchange(self._open, exchanges)


class CountedExchange:
    """One exchange in progress, which ends once."""

    __slots__ = ("_close_reply", "_exchanges", "_open")

    def __init__(self, open_: dict[tuple[str, Kind], int], exchanges: tuple[str, Kind]) -> None:
        self._open = open_
        self._exchanges: tuple[str, Kind] | None = exchanges
        self._close_reply: Callable[[], None] | None = None

    def counted_until_closed(self, reply: Reply) -> Reply:
        """Return the reply; closing it ends the exchange."""
        self._close_reply = reply.close
        return replace(reply, close=self.close)

    def close(self) -> None:
        """Close the reply, and end the exchange."""
        close, self._close_reply = self._close_reply, None
        try:
            if close is not None:
                close()
        finally:
            self.end()

    def end(self) -> None:
        """Stop counting the exchange."""
        exchanges, self._exchanges = self._exchanges, None
        if exchanges is None:
            return
        left = self._open[exchanges] - 1
        if left:
            self._open[exchanges] = left
        else:
            del self._open[exchanges]
