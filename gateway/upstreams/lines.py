"""A line to a server through a wrapper, which may change the headers of the request and the reply."""

from collections.abc import Callable, Mapping

from gateway.errors import GatewayError
from gateway.upstreams import Line, Receive
from gateway.upstreams.reply import Reply


class WrappedLine:
    """A line whose replies are passed through a function of the wrapper."""

    __slots__ = ("_edit", "_headers", "_line", "_receive", "_rewrite")
    _headers: Mapping[str, str]
    _receive: Receive

    def __init__(
        self,
        line: Line,
        edit: Callable[[Reply, Mapping[str, str]], Reply],
        rewrite: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None,
    ) -> None:
        """*edit* gets the reply and the headers given to `post`; it may raise a `GatewayError`.

        *rewrite* returns the headers to send.
        """
        self._line = line
        self._edit = edit
        self._rewrite = rewrite

    def post(self, body: bytes, headers: Mapping[str, str], receive: Receive) -> None:
        """See `Line.post`."""
        self._headers, self._receive = headers, receive
        sent = headers if self._rewrite is None else self._rewrite(headers)
        self._line.post(body, sent, self._pass_on)

    def release(self) -> None:
        """See `Line.release`."""
        self._line.release()

    def abandon(self) -> None:
        """See `Line.abandon`."""
        self._line.abandon()

    def _pass_on(self, reply: Reply | GatewayError) -> None:
        if isinstance(reply, Reply):
            try:
                reply = self._edit(reply, self._headers)
            except GatewayError as error:
                reply = error
        self._receive(reply)
