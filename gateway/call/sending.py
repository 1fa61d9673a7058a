"""An allowed call that can be sent without waiting."""

import logging
from collections.abc import Callable
from typing import Protocol

from gateway.call import faults
from gateway.call.exchange_limits import CountedExchange
from gateway.call.request import CallRequest, Exchange
from gateway.errors import GatewayError, InternalError
from gateway.upstreams import Line
from gateway.upstreams.reply import Reply
from gateway.wire import frames

log = logging.getLogger("okayed.proxy")


class Sending(Protocol):
    """An allowed call, judged and recorded, with a connection reserved for it."""

    def start(self, answer: Callable[[Reply], None]) -> None:
        """Send the call. *answer* is called once, in the event loop, maybe before this returns; errors become replies."""

    def abandon(self) -> None:
        """Cancel the call, since its client left; *answer* is not called any more."""


class LineSending:
    """An allowed call on a reserved line."""

    __slots__ = ("_answer", "_exchange", "_filter", "_line", "_request")

    def __init__(
        self,
        line: Line,
        request: CallRequest,
        exchange: CountedExchange,
        filter_reply: Callable[[Exchange, Reply], Reply],
    ) -> None:
        """*filter_reply* returns the reply as the client may see it, or raises `GatewayError`."""
        self._line: Line | None = line
        self._request = request
        self._exchange = exchange
        self._filter = filter_reply
        self._answer: Callable[[Reply], None]

    def start(self, answer: Callable[[Reply], None]) -> None:
        """See `Sending.start`."""
        self._answer = answer
        if self._line is not None:
            self._line.post(frames.rebuild(self._request.frame), self._request.headers, self._receive)

    def abandon(self) -> None:
        """See `Sending.abandon`. Does nothing once the call is answered."""
        if self._line is not None:
            self._line.abandon()
            self._line = None
            self._exchange.end()

    def _receive(self, received: Reply | GatewayError) -> None:
        self._line = None
        self._answer(self._build_answer(received))

    def _build_answer(self, received: Reply | GatewayError) -> Reply:
        """Return the reply for the client, or the reply to a fault. The exchange ends when the reply is closed."""
        try:
            if isinstance(received, GatewayError):
                raise received
            return self._exchange.counted_until_closed(self._filter(self._request.exchange, received))
        except GatewayError as error:
            fault = error
        except Exception:
            log.exception("an exchange failed")
            fault = InternalError()
        self._exchange.end()
        return faults.build_reply(self._request.frame, fault)
