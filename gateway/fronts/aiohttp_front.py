"""The front on aiohttp: serves every request of an agent that is not plain (`gateway.fronts.plain_head`)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from msgspec.structs import replace

from gateway.auth import protected_resource
from gateway.auth.agents import AuthenticationFailed
from gateway.call.exchange_limits import TooManyBytesError
from gateway.call.request import Exchange, RequestHead
from gateway.errors import ConnectionLostError
from gateway.fronts import header_checks
from gateway.fronts.endpoint import MAX_BODY, Endpoint
from gateway.upstreams.reply import Reply
from gateway.wire import protocol

log = logging.getLogger("okayed.server")


def build_app(endpoint: Endpoint) -> web.Application:
    """Return the application that serves agents."""
    front = _Handlers(endpoint)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[front.guard])
    app.router.add_route("POST", "/mcp/{server}", front.exchange)
    app.router.add_route("GET", "/mcp/{server}", front.exchange)
    app.router.add_route("DELETE", "/mcp/{server}", front.exchange)
    app.router.add_get(protected_resource.WELL_KNOWN + "/mcp/{server}", front.metadata)
    app.router.add_get("/healthz", front.healthz)
    app.router.add_get("/readyz", front.readyz)
    return app


class _Handlers:
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    @web.middleware
    async def guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:  # fmt: skip
        """Refuse unknown hosts and origins."""
        refusal = header_checks.check_host(_pairs(request), self._endpoint.hosts)
        if refusal is None and not _target_matches_host(request):
            refusal = header_checks.refuse(421, "This host name is not served here.")
        return await handler(request) if refusal is None else await _write(request, refusal)

    async def exchange(self, request: web.Request) -> web.StreamResponse:
        """Serve one exchange of Streamable HTTP."""
        head, server = RequestHead(_pairs(request)), request.match_info["server"]
        try:
            authorization = header_checks.list_values(head.pairs, "authorization")
            agent = await self._endpoint.policy.agents().authenticate(authorization, server)
        except AuthenticationFailed as refused:
            return await _write(request, self._endpoint.refuse_token(refused, request.remote, head.pairs))
        if (refusal := header_checks.check_content(request.method, head.pairs)) is not None:
            return await _write(request, refusal)
        exchange = Exchange(agent=agent, server=server, verb=request.method, body=b"", head=head)
        with self._track(exchange):
            return await _write(request, await self._handle(request, exchange))

    async def _handle(self, request: web.Request, exchange: Exchange) -> Reply:
        """Read the body and pass the exchange to the proxy."""
        try:
            with self._endpoint.bodies.reserve(exchange.agent.name, _body_size(request)):
                return await self._endpoint.proxy.handle(replace(exchange, body=await request.read()))
        except TooManyBytesError as error:
            return header_checks.refuse(error.status, str(error), error.headers)

    @contextmanager
    def _track(self, exchange: Exchange) -> Iterator[None]:
        """Track an exchange so that shutdown waits for it."""
        task = asyncio.current_task()
        if not protocol.is_subscription(exchange.verb, exchange.headers):
            self._endpoint.running.add(task)
        try:
            yield
        finally:
            self._endpoint.running.discard(task)

    async def metadata(self, request: web.Request) -> web.StreamResponse:
        """Serve the protected resource metadata of a server (RFC 9728)."""
        return await _write(request, self._endpoint.metadata(request.match_info["server"]))

    async def healthz(self, request: web.Request) -> web.StreamResponse:
        """Report liveness and the gateway's role."""
        return await _write(request, self._endpoint.healthz())

    async def readyz(self, request: web.Request) -> web.StreamResponse:
        """Report whether calls can be judged and held."""
        return await _write(request, await self._endpoint.readyz())


def _pairs(request: web.Request) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value) for name, value in request.headers.items())


def _body_size(request: web.Request) -> int:
    """Return the size of a request body in bytes; the limit for a chunked body, whose size is unknown."""
    if not request.can_read_body:
        return 0
    return MAX_BODY if request.content_length is None else request.content_length


def _target_matches_host(request: web.Request) -> bool:
    """Return whether a request target in absolute form (RFC 9112, 3.2.2) matches the Host header."""
    target = request.raw_path
    return target.startswith("/") or urlsplit(target).netloc == request.headers[hdrs.HOST]


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
