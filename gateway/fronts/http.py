"""The agents' listener: Streamable HTTP on aiohttp. It checks who asks and hands each exchange to the proxy."""

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
from gateway.call.exchange_limits import Bodies, TooManyBytesError
from gateway.call.request import Exchange
from gateway.errors import CutError
from gateway.fronts import RUN
from gateway.proxy import Proxy
from gateway.upstreams.reply import JSON, Reply
from gateway.wire import frames, protocol

#: The largest request body, in bytes.
MAX_BODY = 4 << 20
#: So many wrong tokens from one address in five minutes, and the next one is told to wait. Good tokens always count:
#: the agents of one machine share its address, and none of them can be locked out by another's guesses.
GUESSES = 30
log = logging.getLogger("okayed.server")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


#: Seconds between two looks at what still runs when the listener stops.
LOOK = 0.1


async def _at_once() -> float:
    return 0.0


async def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerPolicy:
    """What the listener checks before anything is read."""

    agents: Callable[[], Agents]
    #: Host names (without port) under which the listener may be addressed, beside the loopback's.
    hosts: frozenset[str] = frozenset()
    ready: Callable[[], Awaitable[str | None]]
    #: Is told that the listener takes no more calls; returns how many seconds those under way have.
    stop: Callable[[], Awaitable[float]] = _at_once
    #: Exchanges that only wait for `cut`, and what ends them.
    parked: Callable[[], frozenset[asyncio.Task[Any] | None]] = frozenset
    cut: Callable[[], Awaitable[None]] = _nothing
    clock: Callable[[], float] = time.time
    #: What the gateway is, for a command that may join it.
    role: str = RUN
    #: The reverse proxies that are believed about a client's address.
    proxies: TrustedProxies = client_address.NO_PROXIES


def build(proxy: Proxy, door: ListenerPolicy) -> web.Application:
    """Return the application that serves agents."""
    front = _Front(proxy, door)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[front.guard])
    app.router.add_route("POST", "/mcp/{server}", front.exchange)
    app.router.add_route("GET", "/mcp/{server}", front.exchange)
    app.router.add_route("DELETE", "/mcp/{server}", front.exchange)
    app.router.add_get(protected_resource.WELL_KNOWN + "/mcp/{server}", front.metadata)
    app.router.add_get("/healthz", front.healthz)
    app.router.add_get("/readyz", front.readyz)
    app.on_shutdown.append(front.finish)
    return app


class _Front:
    def __init__(self, proxy: Proxy, door: ListenerPolicy) -> None:
        self._proxy = proxy
        self._door = door
        self._guesses = Throttle(GUESSES)
        self._running: set[asyncio.Task[Any]] = set()
        self._bodies = Bodies(lambda: proxy.settings.shares.bodies)

    @web.middleware
    async def guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:  # fmt: skip
        """Refuse what a browser on another page, or a rebound DNS name, would send."""
        if not self._known_host(request.headers.getall(hdrs.HOST, [])) or not _of_its_host(request):
            return _refuse(421, "This host name is not served here.")
        if not self._own_origin(request):
            return _refuse(403, "Requests from this origin are not allowed.")
        return await handler(request)

    def _known_host(self, given: list[str]) -> bool:
        names = self._door.hosts.union(LOOPBACK)
        return len(given) == 1 and _host_name(given[0]) in names

    def _own_origin(self, request: web.Request) -> bool:
        origins = request.headers.getall(hdrs.ORIGIN, [])
        return all(self._known_host([urlsplit(origin).netloc]) for origin in origins) and len(origins) < 2

    async def exchange(self, request: web.Request) -> web.StreamResponse:
        """Serve one exchange of Streamable HTTP."""
        server = request.match_info["server"]
        try:
            given = request.headers.getall(hdrs.AUTHORIZATION, [])
            agent = await self._door.agents().authenticate(given, server)
        except AuthenticationFailed as refused:
            return self._guessed(request, refused)
        if (wrong := _unreadable(request)) is not None:
            return wrong
        pairs = tuple((name.lower(), value) for name, value in request.headers.items())
        exchange = Exchange(agent=agent, server=server, verb=request.method, body=b"", pairs=pairs)
        with self._run(exchange):
            try:
                return await _write(request, await self._handled(request, exchange))
            except TooManyBytesError as error:
                return _refuse(error.status, str(error), error.headers)

    async def _handled(self, request: web.Request, exchange: Exchange) -> Reply:
        """Read the body, and have the exchange judged."""
        with self._bodies.one(exchange.agent.name, _announced(request)):
            return await self._proxy.handle(replace(exchange, body=await request.read()))

    @contextmanager
    def _run(self, exchange: Exchange) -> Iterator[None]:
        """Note an exchange that is waited for when the listener stops; a stream that only listens has no end to wait for."""
        task = asyncio.current_task()
        if task is not None and not protocol.is_subscription(exchange.verb, exchange.headers):
            self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)

    async def finish(self, _: web.Application) -> None:
        """Give the exchanges under way their time to end; streams that clients take up again end last."""
        loop = asyncio.get_running_loop()
        ends_at = await self._door.stop() + loop.time()
        while (left := self._running - self._door.parked()) and (seconds := ends_at - loop.time()) > 0:
            await asyncio.wait(left, timeout=min(LOOK, seconds))
        await self._door.cut()

    def _guessed(self, request: web.Request, refused: AuthenticationFailed) -> web.Response:
        """Refuse a request without a good token; an address that keeps sending wrong ones has to wait."""
        peer, now = self._door.proxies.client(request.remote, request.headers), self._door.clock()
        if refused.status == 401 and hdrs.AUTHORIZATION in request.headers:
            if self._guesses.is_blocked(peer, now):
                wait = {"Retry-After": str(int(WINDOW))}
                return _refuse(429, "Too many wrong tokens came from this address. Wait a few minutes.", wait)
            self._guesses.record_failure(peer, now)
            if self._guesses.is_blocked(peer, now):
                log.warning("%s gave %d wrong agent tokens within %.0f s", peer, GUESSES, WINDOW)
        return _refuse(refused.status, str(refused), _challenge(refused))

    async def metadata(self, request: web.Request) -> web.Response:
        """Say who issues tokens for a server (RFC 9728)."""
        found = protected_resource.metadata(self._door.agents().config, request.match_info["server"])
        return _refuse(404, "There is nothing here.") if found is None else web.json_response(found)

    async def healthz(self, _: web.Request) -> web.Response:
        """Say that the process lives, and what it is."""
        return web.json_response({"status": "ok", "role": self._door.role})

    async def readyz(self, _: web.Request) -> web.Response:
        """Say whether calls can be judged and held now."""
        problem = await self._door.ready()
        return web.json_response({"status": problem or "ok"}, status=503 if problem else 200)


def _announced(request: web.Request) -> int:
    """Return how many bytes of body a request may have: a chunked one does not say."""
    if not request.can_read_body:
        return 0
    return MAX_BODY if request.content_length is None else request.content_length


def _of_its_host(request: web.Request) -> bool:
    """Say whether a target in absolute form (RFC 9112, 3.2.2) names the host that the Host header names."""
    target = request.raw_path
    return target.startswith("/") or urlsplit(target).netloc == request.headers[hdrs.HOST]


def _host_name(authority: str) -> str:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:@/\[\]]*)(?::[0-9]+)?", authority)
    return match[1].strip("[]").lower() if match else ""


def _unreadable(request: web.Request) -> web.Response | None:
    """Refuse bodies that others could read differently: other media types, charsets, encodings."""
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
        status=status, body=frames.error(None, -32000, message), content_type=JSON, headers=headers,
    )  # fmt: skip


async def _write(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Write the reply as its chunks come. A client that leaves cancels this, and closing the reply tells the rest."""
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
        pass  # nobody is there to be told
    except CutError as error:
        log.info("an answer was cut off: %s", error)
        _cut(request)
    finally:
        reply.close()
        if (aclose := getattr(reply.chunks, "aclose", None)) is not None:
            await aclose()
    return response


def _cut(request: web.Request) -> None:
    """End the connection as the server ended its own, so that the client sees no whole answer where there is none."""
    if request.transport is not None:
        request.transport.close()
