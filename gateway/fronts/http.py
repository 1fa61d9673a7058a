"""The agents' listener: authenticates each Streamable HTTP exchange and passes it to the proxy."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from approvals import client_address
from approvals.client_address import TrustedProxies
from approvals.throttle import WINDOW, Throttle
from gateway.auth import protected_resource
from gateway.auth.agents import Agents, AuthenticationFailed
from gateway.call.exchange_limits import BodyLimits, TooManyBytesError
from gateway.call.request import Exchange, RequestHead
from gateway.errors import ConnectionLostError
from gateway.fronts import RUN
from gateway.proxy import Proxy
from gateway.upstreams.reply import JSON, Reply
from gateway.wire import frames, protocol

#: The largest request body, in bytes.
MAX_BODY = 4 << 20
#: The most wrong tokens per client address in five minutes. Valid tokens are always accepted: agents on one machine
#: share its address, and one must not lock out the others.
MAX_WRONG_TOKENS = 30
log = logging.getLogger("okayed.server")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


#: Seconds between two checks for running exchanges during shutdown.
POLL_SECONDS = 0.1


async def _stop_at_once() -> float:
    return 0.0


async def _do_nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerPolicy:
    """The agents, host names and shutdown hooks of the listener."""

    agents: Callable[[], Agents]
    #: Accepted host names without port, besides the loopback names.
    hosts: frozenset[str] = frozenset()
    #: Returns why the gateway is not ready, or None.
    ready: Callable[[], Awaitable[str | None]]
    #: Called when shutdown begins; returns how many seconds running exchanges get.
    stop: Callable[[], Awaitable[float]] = _stop_at_once
    #: The tasks of clients that reconnect after shutdown, and a function that ends their streams.
    lingering: Callable[[], frozenset[asyncio.Task[Any] | None]] = frozenset
    end_lingering: Callable[[], Awaitable[None]] = _do_nothing
    clock: Callable[[], float] = time.time
    #: The role that /healthz reports.
    role: str = RUN
    #: The reverse proxies that are trusted to name a client's address.
    proxies: TrustedProxies = client_address.NO_PROXIES


def build_app(proxy: Proxy, policy: ListenerPolicy) -> web.Application:
    """Return the application that serves agents."""
    front = _Handlers(proxy, policy)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[front.guard])
    app.router.add_route("POST", "/mcp/{server}", front.exchange)
    app.router.add_route("GET", "/mcp/{server}", front.exchange)
    app.router.add_route("DELETE", "/mcp/{server}", front.exchange)
    app.router.add_get(protected_resource.WELL_KNOWN + "/mcp/{server}", front.metadata)
    app.router.add_get("/healthz", front.healthz)
    app.router.add_get("/readyz", front.readyz)
    app.on_shutdown.append(front.finish)
    return app


class _Handlers:
    def __init__(self, proxy: Proxy, policy: ListenerPolicy) -> None:
        self._proxy = proxy
        self._policy = policy
        self._wrong_tokens = Throttle(MAX_WRONG_TOKENS)
        self._running: set[asyncio.Task[Any]] = set()
        self._bodies = BodyLimits(lambda: proxy.settings.shares.bodies)

    @web.middleware
    async def guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:  # fmt: skip
        """Refuse unknown hosts and origins, against DNS rebinding and cross-site requests."""
        if not self._known_host(request.headers.getall(hdrs.HOST, [])) or not _target_matches_host(request):
            return _refuse(421, "This host name is not served here.")
        if not self._own_origin(request):
            return _refuse(403, "Requests from this origin are not allowed.")
        return await handler(request)

    def _known_host(self, hosts: list[str]) -> bool:
        names = self._policy.hosts.union(LOOPBACK)
        return len(hosts) == 1 and _parse_host_name(hosts[0]) in names

    def _own_origin(self, request: web.Request) -> bool:
        origins = request.headers.getall(hdrs.ORIGIN, [])
        return all(self._known_host([urlsplit(origin).netloc]) for origin in origins) and len(origins) < 2

    async def exchange(self, request: web.Request) -> web.StreamResponse:
        """Serve one exchange of Streamable HTTP."""
        server = request.match_info["server"]
        try:
            authorization = request.headers.getall(hdrs.AUTHORIZATION, [])
            agent = await self._policy.agents().authenticate(authorization, server)
        except AuthenticationFailed as refused:
            return self._refuse_token(request, refused)
        if (problem := _content_problem(request)) is not None:
            return problem
        head = RequestHead(tuple((name.lower(), value) for name, value in request.headers.items()))
        exchange = Exchange(agent=agent, server=server, verb=request.method, body=b"", head=head)
        with self._track(exchange):
            try:
                return await _write(request, await self._handle(request, exchange))
            except TooManyBytesError as error:
                return _refuse(error.status, str(error), error.headers)

    async def _handle(self, request: web.Request, exchange: Exchange) -> Reply:
        """Read the body and pass the exchange to the proxy."""
        with self._bodies.reserve(exchange.agent.name, _body_size(request)):
            return await self._proxy.handle(replace(exchange, body=await request.read()))

    @contextmanager
    def _track(self, exchange: Exchange) -> Iterator[None]:
        """Track an exchange so that shutdown waits for it; subscriptions are not tracked, since they never end."""
        task = asyncio.current_task()
        if task is not None and not protocol.is_subscription(exchange.verb, exchange.headers):
            self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)

    async def finish(self, _: web.Application) -> None:
        """Wait for running exchanges at shutdown, then end the streams that clients resume at the next gateway."""
        loop = asyncio.get_running_loop()
        ends_at = await self._policy.stop() + loop.time()
        while (left := self._running - self._policy.lingering()) and (seconds := ends_at - loop.time()) > 0:
            await asyncio.wait(left, timeout=min(POLL_SECONDS, seconds))
        await self._policy.end_lingering()

    def _refuse_token(self, request: web.Request, refused: AuthenticationFailed) -> web.Response:
        """Refuse a request without a valid token; throttle addresses that keep sending wrong ones."""
        peer, now = self._policy.proxies.find_client(request.remote, request.headers), self._policy.clock()
        if refused.status == 401 and hdrs.AUTHORIZATION in request.headers:
            if self._wrong_tokens.is_blocked(peer, now):
                wait = {"Retry-After": str(int(WINDOW))}
                return _refuse(429, "Too many wrong tokens from this address. Wait a few minutes.", wait)
            self._wrong_tokens.record_failure(peer, now)
            if self._wrong_tokens.is_blocked(peer, now):
                log.warning("%s sent %d wrong agent tokens within %.0f s", peer, MAX_WRONG_TOKENS, WINDOW)
        return _refuse(refused.status, str(refused), _challenge(refused))

    async def metadata(self, request: web.Request) -> web.Response:
        """Serve the protected resource metadata of a server (RFC 9728)."""
        found = protected_resource.build_metadata(self._policy.agents().config, request.match_info["server"])
        return _refuse(404, "There is nothing here.") if found is None else web.json_response(found)

    async def healthz(self, _: web.Request) -> web.Response:
        """Report liveness and the gateway's role."""
        return web.json_response({"status": "ok", "role": self._policy.role})

    async def readyz(self, _: web.Request) -> web.Response:
        """Report whether calls can be judged and held."""
        problem = await self._policy.ready()
        return web.json_response({"status": problem or "ok"}, status=503 if problem else 200)


def _body_size(request: web.Request) -> int:
    """Return the size of a request body in bytes; the limit for a chunked body, whose size is unknown."""
    if not request.can_read_body:
        return 0
    return MAX_BODY if request.content_length is None else request.content_length


def _target_matches_host(request: web.Request) -> bool:
    """Return whether a request target in absolute form (RFC 9112, 3.2.2) matches the Host header."""
    target = request.raw_path
    return target.startswith("/") or urlsplit(target).netloc == request.headers[hdrs.HOST]


def _parse_host_name(authority: str) -> str:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:@/\[\]]*)(?::[0-9]+)?", authority)
    return match[1].strip("[]").lower() if match else ""


def _content_problem(request: web.Request) -> web.Response | None:
    """Refuse bodies that a server could read differently: other media types, charsets and encodings."""
    if hdrs.CONTENT_ENCODING in request.headers:
        return _refuse(415, "Content-Encoding is not accepted.")
    if request.method == "POST" and not _is_json(request.headers.getall(hdrs.CONTENT_TYPE, [])):
        return _refuse(415, "Content-Type must be application/json.")
    return None


def _is_json(types: list[str]) -> bool:
    return (
        len(types) == 1
        and re.fullmatch(r"application/json(\s*;\s*charset=\"?utf-8\"?)?\s*", types[0].strip(), re.IGNORECASE)
        is not None
    )


def _challenge(refused: AuthenticationFailed) -> Mapping[str, str]:
    return {} if refused.challenge is None else {hdrs.WWW_AUTHENTICATE: refused.challenge}


def _refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=frames.build_error(None, -32000, message), content_type=JSON, headers=headers,
    )  # fmt: skip


async def _write(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Write the reply as it arrives. A client that disconnects cancels this; then the reply is closed."""
    whole = reply.body is not None
    kind = partial(web.Response, body=reply.body) if whole else web.StreamResponse
    response = kind(status=reply.status, headers=reply.headers)
    try:
        await response.prepare(request)
        async for chunk in reply.chunks:
            await response.write(chunk)
        await response.write_eof()
        await reply.delivered()
    except ConnectionResetError:
        pass  # the client has left
    except ConnectionLostError as error:
        log.info("a response broke off: %s", error)
        _abort(request)
    finally:
        reply.close()
        if (aclose := getattr(reply.chunks, "aclose", None)) is not None:
            await aclose()
    return response


def _abort(request: web.Request) -> None:
    """Close the connection, so that the client does not mistake an incomplete response for a complete one."""
    if request.transport is not None:
        request.transport.close()
