"""A real inbox on port 0: the application, a store (in memory unless given), a clock that tests move, and approvers."""

import asyncio
import hashlib
import time
from contextlib import AsyncExitStack

from aiohttp import ClientSession, CookieJar, web

from approvals import digest
from approvals.identity import Directory
from approvals.model import (
    Approver,
    CallId,
    Classification,
    Decision,
    HeldCall,
    Outcome,
    Terms,
    ToolCall,
)
from approvals.service import ApprovalService
from approvals.store.memory.store import MemoryStore
from approvals.web.application import build_inbox
from approvals.web.one_time_codes import create_code
from approvals.web.options import WebOptions
from replacing import replace

PEOPLE = ("alice", "bob", "carol")


def token(name):
    return f"{name}-token"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Inbox:
    """Use as `async with Inbox() as inbox`; options of the inbox may be given."""

    def __init__(self, *, url="", store=None, **options):
        self.now = float(int(time.time()))
        self.store = store or MemoryStore()
        self.directory = Directory(
            Approver(name=name, email=f"{name}@example.com", token_sha256=sha256(token(name)))
            for name in PEOPLE
        )
        self.service = ApprovalService(self.store, self.directory, clock=lambda: self.now)
        self._url = url
        self._options = options
        self._made = 0

    async def __aenter__(self):
        async with AsyncExitStack() as stack:
            # The application is built with the inbox's address, so the port must be known first.
            server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            server.close()
            await server.wait_closed()
            self.here = f"http://127.0.0.1:{self.port}"
            self.options = WebOptions(url=self._url or self.here, **self._options)
            self.app = build_inbox(self.service, self.store, self.options)
            runner = web.AppRunner(self.app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error):
        await self._stack.aclose()

    async def stranger(self, **headers):
        """Return a client that is not signed in; it behaves like a browser on a page of the inbox."""
        own = {"Sec-Fetch-Site": "same-origin"} | headers
        client = ClientSession(self.here, cookie_jar=CookieJar(unsafe=True), headers=own)
        return await self._stack.enter_async_context(client)

    async def person(self, name="alice", **headers):
        """Return a client that is signed in."""
        client = await self.stranger(**headers)
        async with client.post("/login", data={"token": token(name)}, allow_redirects=False) as answer:
            assert answer.status == 303
        return client

    async def program(self, name="alice", **headers):
        """Return a client that sends a token with each request."""
        client = ClientSession(self.here, headers={"Authorization": f"Bearer {token(name)}"} | headers)
        return await self._stack.enter_async_context(client)

    async def code(self, name="alice"):
        return await create_code(self.service, self.store, self.directory.by_name(name))

    def call(self, tool="put_user_policy", *, arguments=b'{"user_name":"ana"}', **changes):
        """Return a held call that is not stored yet; *changes* are fields of the held call, or of its tool call."""
        self._made += 1
        inner = {name: changes.pop(name) for name in ("agent", "owner", "server") if name in changes}
        call = ToolCall(
            extra_params=changes.pop("extra_params", b""),
            **({"agent": "ci-bot", "owner": "maria", "server": "iam"} | inner),
            tool=tool,
            arguments=arguments,
        )
        terms = Terms(approvers=changes.pop("approvers", frozenset(PEOPLE)), needed=changes.pop("needed", 1))
        held = HeldCall(
            id=CallId(f"hold_{self._made:026d}"),
            call=call,
            terms=terms,
            classification=Classification(
                category="Write", risk="High", severity="critical", evidence=("policy: says who may do what",)
            ),
            rule="tools.put_user_policy",
            reason="IAM changes need a second pair of eyes",
            key=digest.key(call),
            digest=digest.digest(call),
            created_at=self.now,
            expires_at=self.now + 900,
        )
        return replace(held, **changes)

    async def hold(self, tool="put_user_policy", **changes):
        return await self.service.hold(self.call(tool, **changes))

    async def approve(self, call, name="bob", **more):
        return await self.service.review(
            call.id, self.directory.by_name(name), Decision.APPROVE, via="slack", digest=call.digest, **more
        )

    async def deny(self, call, name="bob", reason="use the staging account"):
        return await self.service.review(
            call.id, self.directory.by_name(name), Decision.DENY, via="slack", reason=reason
        )

    async def run(self, call, body=b'{"content":[{"type":"text","text":"Created."}]}', *, is_error=False):
        await self.send(call)
        return await self.service.finish(call.id, Outcome(is_error=is_error, body=body))

    async def send(self, call):
        """Approve a call and start its run, without an answer."""
        await self.approve(call)
        return (await self.service.claim(call.id, lambda _: None))[0]

    async def doubt(self, call):
        await self.send(call)
        return await self.service.record_in_doubt(call.id, "The server was cut off.")
