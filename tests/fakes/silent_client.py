"""A client that sends no cancellation on a timeout, like Python SDK 1.x: the request stays open, and the client repeats it."""

import asyncio
from dataclasses import dataclass, field
from itertools import count

from gateways import RunningGateway, call, last_frame
from hang import HANG

TIMER = 5.0
_ids = count(1)


@dataclass
class SilentClient:
    """The client. `ask` leaves every request open; `answers` has them in the order they were sent."""

    gateway: RunningGateway
    arguments: dict = field(default_factory=lambda: {"a": 1})
    headers: dict = field(default_factory=dict)
    name: str = "mcp"
    answers: list[asyncio.Task] = field(default_factory=list)
    #: The id of the newest request.
    number: int = 0

    async def connect(self, session: str) -> None:
        """Open a session with this id, like a new connection."""
        self.gateway.recorder.session = session
        params = {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": self.name, "version": "1"},
        }  # fmt: skip
        opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        async with await self.gateway.post(opening) as answer:
            await answer.read()
        self.headers = {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}

    async def ask(self) -> asyncio.Task:
        """Send the call; return the task of its answer once the gateway holds the call or has answered."""
        number = self.number = next(_ids)
        answer = asyncio.ensure_future(self._answer(number, dict(self.headers)))
        self.answers.append(answer)
        async with asyncio.timeout(HANG):
            while not answer.done() and not self._waits(number):
                await asyncio.sleep(0)
        return answer

    async def _answer(self, number: int, headers: dict) -> dict:
        body = call("create_note", self.arguments, id=number)
        async with await self.gateway.post(body, headers) as answer:
            return last_frame(await answer.read())

    def _waits(self, number: int) -> bool:
        return any(named.id == number for named in self.gateway.gateway.proxy._held_answers._waits._waits)

    async def cancel(self) -> None:
        """Send the cancellation of the newest request."""
        gone = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": self.number}}
        async with await self.gateway.post(gone, self.headers) as answer:
            assert answer.status == 202

    async def give_up(self, after: float = TIMER) -> None:
        """Let the newest request time out: time passes, and no cancellation is sent."""
        self.gateway.clock.now += after
