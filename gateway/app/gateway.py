"""The composition root: assembles a running gateway from a config. Only this folder names concrete classes."""

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from approvals.clock import TOLERANCE, Clock, EffectiveClock
from approvals.digest import sha256
from approvals.errors import StoreError
from approvals.model import AuditEvent, Pin
from approvals.service import ApprovalService
from approvals.store import Store
from gateway.app import parts, recovery
from gateway.app.checkpoints import Checkpoints, build_checkpoint_target
from gateway.app.late_client import LateClient
from gateway.app.stores import MEMORY, open_store, store_path
from gateway.auth.agents import Agents
from gateway.call.judging import config_objection
from gateway.call.limiter import Limiter, WindowLimiter
from gateway.call.metrics import Metrics
from gateway.call.settings import ProxySettings
from gateway.config.options import Config, ServerOptions, is_off, parse_duration
from gateway.config.server_identity import compute_identity, describe_location
from gateway.hold.call_ids import CallIds
from gateway.hold.request_state import StateSealer
from gateway.hold.running import Forwarder
from gateway.policy.compiling import compile_policy
from gateway.proxy import Proxy
from gateway.tools.catalogue import Catalogue, Tool
from gateway.tools.pins import ChangeAction, Pins
from gateway.upstreams import Upstream
from gateway.upstreams.http import ConnectionPools
from gateway.upstreams.replaceable import ReplaceableUpstream

if TYPE_CHECKING:
    from gateway.auth.jwks import JwksCache

#: Seconds for running calls to finish when the gateway stops.
GRACE = 20.0
#: The names of the gateway's secrets in the store.
SECRETS = ("rounds", "identity")
#: The used share of the store's disk, from 0 to 1, at which the gateway is no longer ready.
DISK_FULL = 0.85
log = logging.getLogger("okayed")


class Gateway:
    """A running gateway without listeners and channels; `assemble` creates it."""

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        client: LateClient,
        pools: ConnectionPools,
        limiter: Limiter,
        pins: Pins,
        secrets: Mapping[str, bytes],
        clock: EffectiveClock,
        disk_used: Callable[[], float],
        embedded: bool = False,
    ) -> None:
        self.config = config
        #: Whether it runs inside an `okayed stdio`; its servers then start when a client first needs them.
        self.embedded = embedded
        self._secrets = secrets
        self._started_in = str(Path.cwd())
        self.store = store
        self.clock = clock
        self.service = ApprovalService(
            store, parts.build_directory(config), clock=clock, wall=clock.wall, monotonic=clock.monotonic
        )
        self.service.quotas = parts.build_quotas(config)
        self._pins = pins
        self.catalogue = Catalogue(clock, pins, self._on_tool_change)
        self.forwarder = Forwarder(self.service, self.catalogue.mark_stale)
        # One cache for each URL, so that a config change does not fetch the same keys again.
        self._jwks = cache(self._build_jwks_cache)
        self.agents = Agents(config, self._jwks, clock)
        self._disk_used = disk_used
        self.metrics = Metrics(disk_used)
        self.checkpoints = Checkpoints(
            store, build_checkpoint_target(config.audit.checkpoint, client, clock.wall)
        )
        self._client = client
        self._pools = pools
        self._upstreams: dict[str, ReplaceableUpstream] = {}
        #: Set once every server has been asked for its tools, whether or not it answered.
        self.discovery_done = asyncio.Event()
        #: Whether the gateway is about to stop; /readyz then fails, so a load balancer sends clients elsewhere.
        self._draining = False
        #: When running calls are cut off, on the loop's clock; None until the gateway stops.
        self._ends_at: float | None = None
        self.proxy = Proxy(
            settings=self._settings(config),
            service=self.service,
            state=store,
            catalogue=self.catalogue,
            limiter=limiter,
            forwarder=self.forwarder,
            metrics=self.metrics,
            new_id=CallIds().make,
            sealer=self.sealer,
        )
        self._connect_servers(config)

    def _build_jwks_cache(self, url: str) -> "JwksCache":
        from gateway.auth.jwks import JwksCache

        return JwksCache(url, self._client.open(), self.clock)

    def sealer(self) -> StateSealer:
        """Return the sealer of requestState."""
        return parts.build_sealer(tuple(self.config.approvals.state_keys), self._secrets["rounds"])

    async def adopt(self, config: Config) -> None:
        """Switch to *config*. Unchanged servers keep their connections."""
        old, self.config = self.config, config
        replaced = [*self._remove_servers(config), *self._reconnect_servers(old, config)]
        self._connect_servers(config)
        self.proxy.adopt(self._settings(config))
        self.agents = Agents(config, self._jwks, self.clock)
        self.service.directory = parts.build_directory(config)
        self.service.quotas = parts.build_quotas(config)
        await self._void_outdated_calls()
        for upstream in replaced:
            await upstream.close()

    def _remove_servers(self, config: Config) -> Iterator[Upstream]:
        """Remove the servers that *config* omits or gives another identity; yields their connections."""
        identities = self._identities(config)
        for name, before in self.proxy.settings.identities.items():
            if identities.get(name) != before:
                self.catalogue.forget(name)
                yield self._upstreams.pop(name)

    def _reconnect_servers(self, old: Config, config: Config) -> Iterator[Upstream]:
        """Replace the connections whose options changed, such as a rotated token; yields the old ones."""
        for name, upstream in self._upstreams.items():
            options = config.servers[name]
            if parts.connection_options(old.servers[name]) != parts.connection_options(options):
                self.catalogue.mark_stale(name)
                yield upstream.renew(self._connect(name, options))

    async def bind_identities(self) -> None:
        """Bind pins and calls stored by older versions to their servers, then void outdated calls."""
        settings = self.proxy.settings
        self._pins.bind(settings.identities)
        for held in await self.service.open_calls():
            if not held.identity and (server := held.call.server) in settings.identities:
                await self.service.bind_server(
                    held.id, settings.identities[server], settings.addresses[server]
                )
        await self._void_outdated_calls()

    async def _void_outdated_calls(self) -> None:
        """Void the open calls whose agent or server has changed since they were held."""
        for held in await self.service.open_calls():
            if why := config_objection(held, self.proxy.settings):
                await self.service.void(held.id, why)

    def _identities(self, config: Config) -> Mapping[str, str]:
        key = self._secrets["identity"]
        return {
            name: compute_identity(server, key, self._started_in) for name, server in config.servers.items()
        }

    def _connect_servers(self, config: Config) -> None:
        for name, options in config.servers.items():
            if name not in self._upstreams:
                self._upstreams[name] = ReplaceableUpstream(self._connect(name, options))
        self._pins.configure(self._identities(config))
        self.catalogue.configure(
            self._upstreams, {name: parts.build_overrides(server) for name, server in config.servers.items()}
        )

    def _connect(self, name: str, options: ServerOptions) -> Upstream:
        return parts.build_upstream(name, options, self._client, self._pools, self.clock)

    def _settings(self, config: Config) -> ProxySettings:
        return ProxySettings(
            policy=compile_policy(config),
            upstreams=self._upstreams,
            identities=self._identities(config),
            addresses={name: describe_location(server) for name, server in config.servers.items()},
            holds=parts.build_hold_settings(config),
            shares=parts.build_exchange_shares(config),
            may_use=parts.build_access_check(config),
            requesters=parts.build_directory(config).names_of_owner,
            pin=ChangeAction(config.pin),
            annotate=config.annotate,
            audit_allowed=config.audit.allowed,
        )

    def _on_tool_change(self, server: str, tool: Tool) -> None:
        """Record a tool definition that has changed or has a defect, and void the calls that wait for it."""
        why = f"quarantined: {tool.defect}" if tool.defect else "its definition differs from the accepted one"
        log.warning("%s/%s: %s", server, tool.name, why)
        self.store.post(
            AuditEvent(
                at=self.clock.wall(), kind="tool.changed", actor="okayed", server=server, tool=tool.name,
                detail={"why": why, "was": sha256(tool.accepted) if tool.accepted else "", "now": tool.hash},
            )
        )  # fmt: skip
        if tool.accepted and self.config.pin == "warn":
            self.catalogue.accept(server, tool)
        self.forwarder.void(server, tool.name, tool.hash)

    def accept(self, server: str, tool: str, approver: str) -> list[str]:
        """Accept the current definition of a tool, or of all tools of a server if *tool* is "".

        Returns the names of the tools whose definitions had changed.
        """
        changed = [
            found
            for found in self.catalogue.listed_tools(server)
            if found.accepted and tool in ("", found.name)
        ]
        for found in changed:
            self.catalogue.accept(server, found)
            event = AuditEvent(
                at=self.clock.wall(), kind="tool.accepted", actor=approver, server=server, tool=found.name, detail={"now": found.hash},
            )  # fmt: skip
            self.store.post(event)
        return [found.name for found in changed]

    async def reload_pins(self) -> None:
        """Load the tool definitions that other replicas accepted; raises `StoreError`."""
        for server in await self._pins.reload():
            self.catalogue.compare_with_pins(server)

    def clock_problem(self) -> str | None:
        """Return the problem with the machine's clock and its remedy, or None."""
        if self.clock.behind <= TOLERANCE:
            return None
        return (
            f"clock: this machine's clock is {self.clock.behind:.0f} s behind the latest time in the store."
            " Deadlines follow the later time. Correct the clock; if it was ahead before, stop the gateway and run:"
            " okayed check --reset-clock"
        )

    async def readiness_problem(self) -> str | None:
        """Return why the gateway is not ready to judge and hold calls, or None."""
        if self._draining:
            return "stopping"
        try:
            await self.store.check()
            used = self._disk_used()
        except Exception as error:  # noqa: BLE001  (any fault of the store makes the gateway not ready)
            return f"store: {error}"
        if used >= DISK_FULL:
            return f"store: its disk is {used:.0%} full; free some space"
        if problem := self.clock_problem():
            return problem
        if self.discovery_done.is_set() or self.embedded:
            return None
        return "servers: not every server has been asked for its tools yet"

    async def refresh_tools(self) -> None:
        """Refresh the tool lists that are missing or stale; a failing server does not delay the others."""
        await self.catalogue.refresh_stale(only_asked=self.embedded)
        self.discovery_done.set()

    async def drain(self) -> None:
        """Keep serving for the `drain` time while /readyz fails, so that a load balancer moves clients elsewhere.

        An embedded gateway skips this: it has no load balancer, and a `run` may be waiting for its store.
        """
        if not self._draining:
            self._draining = True
            skip = self.embedded or is_off(self.config.drain)
            await asyncio.sleep(0.0 if skip else parse_duration(self.config.drain))

    async def stop(self) -> float:
        """Start no more calls and tell waiting clients to retry; returns the seconds left for running calls."""
        now = asyncio.get_running_loop().time()
        if self._ends_at is None:
            self._ends_at = now + GRACE
            await self.proxy.close()
        return max(0.0, self._ends_at - now)

    async def end_lingering(self) -> None:
        """Wait for running calls, then end the streams; clients resume them when a gateway is back."""
        await self.forwarder.finish(await self.stop())
        self.proxy.end_lingering()

    async def close(self) -> None:
        """Wait for running calls, then close the servers."""
        await self.end_lingering()
        with suppress(StoreError):  # on failure, the next start uses the time of an earlier commit
            self.store.keep_time(self.clock())
        with suppress(StoreError):  # on failure, the lease ends by itself
            await self.service.replica.end()
        await asyncio.gather(*(upstream.close() for upstream in self._upstreams.values()))


def measure_disk_use(folder: Path) -> float:
    """Return the used share of a folder's disk, from 0 to 1, without the blocks reserved for root."""
    usage = shutil.disk_usage(folder)
    return usage.used / (usage.used + usage.free)


def _disk_gauge(config: Config, measure: Callable[[Path], float]) -> Callable[[], float]:
    """Return the function that measures the disk of the store; a store in memory uses none."""
    if config.store == MEMORY:
        return lambda: 0.0
    return partial(measure, store_path(config.store).absolute().parent)


@asynccontextmanager
async def assemble(
    config: Config,
    clock: Clock = time.time,
    monotonic: Clock = time.monotonic,
    *,
    accepted: Iterable[Pin] = (),
    restored: bool = False,
    opener: Callable[..., Awaitable[Store]] | None = None,
    limiter: Limiter | None = None,
    embedded: bool = False,
    disk: Callable[[Path], float] = measure_disk_use,
) -> AsyncIterator[Gateway]:
    """Assemble a gateway without listeners and channels, as `run`, `stdio`, `tools` and `demo` need it.

    *clock* is the wall clock. *accepted* adds accepted tool definitions to those in the store. *restored* treats the
    store as a restored copy. *opener* replaces `open_store`. *limiter* replaces the gateway's own `WindowLimiter`, so
    that several gateways can share one. *embedded* is for a gateway inside an `okayed stdio`. *disk* returns the used
    share of a folder's disk, from 0 to 1. Raises `StoreError`.
    """
    async with AsyncExitStack() as stack:
        store = await (opener or open_store)(config, restored=restored)
        stack.push_async_callback(store.close)
        effective = EffectiveClock(clock, monotonic, await store.highest_time())
        client = LateClient()
        stack.push_async_callback(client.close)
        pools = ConnectionPools()
        stack.push_async_callback(pools.close)
        gateway = Gateway(
            config,
            store,
            client=client,
            pools=pools,
            limiter=limiter or await WindowLimiter.load(store, effective()),
            pins=Pins(store, [*await store.pins(), *accepted]),
            secrets={name: await store.secret(name) for name in SECRETS},
            clock=effective,
            disk_used=_disk_gauge(config, disk),
            embedded=embedded,
        )
        await recovery.record_start(
            gateway.service, gateway.store, await gateway.checkpoints.last(), forced=restored
        )
        stack.push_async_callback(gateway.checkpoints.keep)
        stack.push_async_callback(gateway.close)
        await gateway.bind_identities()
        yield gateway
