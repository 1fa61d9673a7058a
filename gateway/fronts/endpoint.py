"""The endpoint behind both HTTP fronts of the agents' listener: tokens, limits, probes and shutdown."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from multidict import CIMultiDict

from approvals import client_address
from approvals.client_address import TrustedProxies
from approvals.throttle import WINDOW, Throttle
from gateway.auth import protected_resource
from gateway.auth.agents import Agents, AuthenticationFailed
from gateway.call.exchange_limits import BodyLimits
from gateway.fronts import RUN, header_checks
from gateway.fronts.header_checks import Pairs
from gateway.proxy import Proxy
from gateway.upstreams.reply import Reply

#: The largest request body, in bytes.
MAX_BODY = 4 << 20
#: The most wrong tokens per client address in five minutes. Valid tokens are always accepted: agents on one machine
#: share its address, and one must not lock out the others.
MAX_WRONG_TOKENS = 30
#: Seconds between two checks for running exchanges during shutdown.
POLL_SECONDS = 0.02
_JSON_TEXT = {"Content-Type": "application/json; charset=utf-8"}
log = logging.getLogger("okayed.server")


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


class Endpoint:
    """The agents' endpoint: its proxy, its limits, and the exchanges that are running at either front."""

    def __init__(self, proxy: Proxy, policy: ListenerPolicy) -> None:
        self.proxy = proxy
        self.policy = policy
        self.hosts = policy.hosts | header_checks.LOOPBACK
        self.bodies = BodyLimits(lambda: proxy.settings.shares.bodies)
        #: The exchanges in progress: their tasks, or the connections of those that need no task. Subscriptions are not
        #: among them, since they never end.
        self.running: set[object] = set()
        self._wrong_tokens = Throttle(MAX_WRONG_TOKENS)

    def refuse_token(self, refused: AuthenticationFailed, remote: str | None, pairs: Pairs) -> Reply:
        """Refuse a request without a valid token; throttle addresses that keep sending wrong ones."""
        peer, now = self.policy.proxies.find_client(remote, CIMultiDict(pairs)), self.policy.clock()
        if refused.status == 401 and header_checks.list_values(pairs, "authorization"):
            if self._wrong_tokens.is_blocked(peer, now):
                wait = {"Retry-After": str(int(WINDOW))}
                return header_checks.refuse(
                    429, "Too many wrong tokens from this address. Wait a few minutes.", wait
                )
            self._wrong_tokens.record_failure(peer, now)
            if self._wrong_tokens.is_blocked(peer, now):
                log.warning("%s sent %d wrong agent tokens within %.0f s", peer, MAX_WRONG_TOKENS, WINDOW)
        return header_checks.refuse(refused.status, str(refused), _challenge(refused))

    def metadata(self, server: str) -> Reply:
        """Return the protected resource metadata of a server (RFC 9728)."""
        found = protected_resource.build_metadata(self.policy.agents().config, server)
        return header_checks.refuse(404, "There is nothing here.") if found is None else _json_reply(found)

    def healthz(self) -> Reply:
        """Report liveness and the gateway's role."""
        return _json_reply({"status": "ok", "role": self.policy.role})

    async def readyz(self) -> Reply:
        """Report whether calls can be judged and held."""
        problem = await self.policy.ready()
        return _json_reply({"status": problem or "ok"}, status=503 if problem else 200)

    async def finish(self) -> None:
        """Wait for running exchanges at shutdown, then end the streams that clients resume at the next gateway."""
        loop = asyncio.get_running_loop()
        ends_at = await self.policy.stop() + loop.time()
        while self.running - self.policy.lingering() and (seconds := ends_at - loop.time()) > 0:  # noqa: ASYNC110  (a task starts to linger without an event)
            await asyncio.sleep(min(POLL_SECONDS, seconds))
        await self.policy.end_lingering()


def _json_reply(content: Mapping[str, Any], *, status: int = 200) -> Reply:
    return Reply(status=status, headers=_JSON_TEXT, body=msgspec.json.encode(content))


def _challenge(refused: AuthenticationFailed) -> Mapping[str, str]:
    return {} if refused.challenge is None else {"WWW-Authenticate": refused.challenge}
