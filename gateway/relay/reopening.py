"""Sessions that outlast what stands behind them: a child that ended or was reaped, a gateway that was started again.

A client of the handshake revisions learns of such an end by a 404 that many cannot bear. Where the gateway itself held the session, it
opens another in the way that the client opened its own, and goes on there under the client's id.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.call.sessions import Session
from gateway.errors import NotSentError, UnknownSessionError
from gateway.upstreams import Upstream, lifecycle
from gateway.upstreams.reply import Reply
from gateway.wire import protocol

#: Seconds after a server's last answer in a session for which the session is taken to be there.
LATELY = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReopeningUpstream:
    """An upstream as one session sees it. A server of its own over HTTP says 404 itself, and is believed."""

    inner: Upstream
    session: Session
    #: The client's id of the session.
    id: str
    #: Told of each time that the session was opened again.
    reopened: Callable[[], None]
    clock: Callable[[], float]

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; when nothing was sent because the session is gone, in one that is opened like it.

        The headers may name another session, opened in place of this one; its answers say nothing of this one.
        """
        reply = await self._sent(verb, body, headers)
        if reply.status < 400 and headers.get(protocol.SESSION_HEADER) == self.id:
            self.session.answered_at = self.clock()
        return reply

    async def _sent(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        gone = self.session.now
        try:
            return await self.inner.send(verb, body, self._present(headers))
        except UnknownSessionError:
            if verb == "DELETE" or not self.session.opening:
                raise
        async with self.session.turn:
            if self.session.now == gone:  # else another exchange has opened it again meanwhile
                await self._reopen(headers)
        return await self.inner.send(verb, body, self._present(headers))

    def knows(self, headers: Mapping[str, str]) -> bool | None:
        """Say whether the session is there. One that the gateway holds is opened again when something is sent."""
        if self.inner.knows(headers) is not None:
            return True
        return True if self.clock() - self.session.answered_at < LATELY else None

    async def close(self) -> None:
        """Close what stands behind."""
        await self.inner.close()

    def _present(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        return {**headers, protocol.SESSION_HEADER: self.session.now} if self.session.now else headers

    async def _reopen(self, headers: Mapping[str, str]) -> None:
        try:
            again = await lifecycle.reopen_session(self.inner.send, self.session.opening, headers)
        except NotSentError as error:
            raise UnknownSessionError from error
        self.session.now = again.get(protocol.SESSION_HEADER, "")
        self.reopened()
