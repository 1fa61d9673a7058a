"""Reopens a lost upstream session (child exited, gateway restarted) without the client noticing.

A client of the handshake revisions would get a 404, and many cannot recover from it. The gateway opens another session
with the client's own initialize, while the client keeps its session id.
"""

from collections.abc import Callable, Mapping

import msgspec

from gateway.call.sessions import Session
from gateway.errors import NotSentError, UnknownSessionError
from gateway.upstreams import Upstream, lifecycle
from gateway.upstreams.lines import WrappedLine
from gateway.upstreams.reply import Reply
from gateway.wire import protocol

#: Seconds after an answer in which the session is assumed to exist.
RECENT_SECONDS = 5.0


class ReopeningUpstream(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream of one session. A 404 from a remote HTTP server is passed on: its own client decides."""

    inner: Upstream
    session: Session
    #: The session id that the client uses.
    id: str
    #: Called after each reopening.
    on_reopened: Callable[[], None]
    clock: Callable[[], float]

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange. If the session is lost and nothing was sent, reopen it and send again.

        The headers may name a replacement session; its answers do not show that this one exists.
        """
        return self._note_answer(await self._send(verb, body, headers), headers)

    def _note_answer(self, reply: Reply, headers: Mapping[str, str]) -> Reply:
        """Return the reply to a request with these headers; note that the session exists."""
        if reply.status < 400 and headers.get(protocol.SESSION_HEADER) == self.id:
            self.session.answered_at = self.clock()
        return reply

    async def _send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        lost_id = self.session.upstream_id
        try:
            return await self.inner.send(verb, body, self._current_headers(headers))
        except UnknownSessionError:
            if verb == "DELETE" or not self.session.opening:
                raise
        async with self.session.reopening:
            if self.session.upstream_id == lost_id:  # otherwise another exchange has reopened it
                await self._reopen(headers)
        return await self.inner.send(verb, body, self._current_headers(headers))

    def line(self) -> WrappedLine | None:
        """Reserve a connection; only a server behind a URL has one, and its sessions are not reopened."""
        line = self.inner.line()
        return None if line is None else WrappedLine(line, self._note_answer, self._current_headers)

    def knows(self, headers: Mapping[str, str]) -> bool | None:
        """See `Upstream.knows`. A session that the gateway itself keeps counts as known: the next send reopens it."""
        if self.inner.knows(headers) is not None:
            return True
        return True if self.clock() - self.session.answered_at < RECENT_SECONDS else None

    async def close(self) -> None:
        """Close the upstream."""
        await self.inner.close()

    def _current_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        return (
            {**headers, protocol.SESSION_HEADER: self.session.upstream_id}
            if self.session.upstream_id
            else headers
        )

    async def _reopen(self, headers: Mapping[str, str]) -> None:
        try:
            renewed = await lifecycle.reopen_session(self.inner.send, self.session.opening, headers)
        except NotSentError as error:
            raise UnknownSessionError from error
        self.session.upstream_id = renewed.get(protocol.SESSION_HEADER, "")
        self.on_reopened()
