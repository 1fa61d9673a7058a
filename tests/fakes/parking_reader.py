"""A reader of replies that parks as the HTTP front does: while a reply is parked, no task reads it."""

import asyncio
import json

from gateway.upstreams.reply import NOTHING, Reply


class ParkingReader:
    """Reads one answer of `Proxy.begin`, and keeps what it was sent."""

    def __init__(self, begun):
        """*begun* is the coroutine of `Proxy.begin`."""
        self.written, self.headers, self.parked = b"", {}, None
        self.left = self.ended = False
        #: Broken promises of the reply.
        self.problems = []
        self.task = asyncio.ensure_future(self._begin(begun))

    async def _begin(self, begun):
        await self._read(await begun)

    async def _read(self, answer):
        if not isinstance(answer, Reply):
            if answer.park(self._refuse, self._resume):
                self.parked = answer
                return
            answer = await answer.decide()
        self.headers = answer.headers
        if answer.body is not None:
            self.written += answer.body
        await self._read_chunks(answer)

    async def _read_chunks(self, reply):
        if reply.chunks is not NOTHING:
            while not reply.chunks.park(self._write, self._resume):
                chunk = await anext(reply.chunks, None)
                if chunk is None:
                    break
                self.written += chunk
            else:
                self.parked = reply
                return
        await reply.delivered()
        reply.close()
        self.ended = True

    def _refuse(self, _):
        self.problems.append("a chunk was written before the head")

    def _write(self, chunk):
        if self.parked is None:
            self.problems.append("a chunk was written while it was not parked")
        self.written += chunk

    def _resume(self):
        parked, self.parked = self.parked, None
        if parked is None:
            self.problems.append("it was resumed while it was not parked")
            return
        self.task = asyncio.ensure_future(
            self._read_chunks(parked) if isinstance(parked, Reply) else self._read(parked)
        )

    def leave(self):
        """Hang up."""
        self.left = True
        parked, self.parked = self.parked, None
        if parked is None:
            self.task.cancel()
        else:
            parked.close()

    @property
    def frames(self):
        """The frames that it was sent."""
        if self.headers.get("Content-Type") == "application/json":
            return [json.loads(self.written)] if self.written else []
        data = [line[5:] for line in self.written.splitlines() if line.startswith(b"data:")]
        return [json.loads(one) for one in data if one.strip()]

    @property
    def responses(self):
        """The responses among them."""
        return [frame for frame in self.frames if "id" in frame and "method" not in frame]

    @property
    def event_id(self):
        """The event id with which its stream can be resumed, or None."""
        return next(
            (line[3:].strip().decode() for line in self.written.splitlines() if line.startswith(b"id:")), None
        )
