"""The composition root: a config becomes a running application. The only file that knows concrete classes."""

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache, lru_cache, partial
from pathlib import Path

import aiohttp
import msgspec
from ulid import ULID

from approvals.clock import TOLERANCE, Clock, EffectiveClock
from approvals.digest import sha256
from approvals.errors import StoreError
from approvals.identity import Directory
from approvals.model import Approver, AuditEvent, CallId, Pin
from approvals.quotas import Quotas
from approvals.service import ApprovalService
from approvals.store import Store
from approvals.store.memory import MemoryStore
from gateway.app import recovery
from gateway.app.checkpoints import Checkpoints, build_checkpoint_target
from gateway.auth.agents import Agents
from gateway.auth.jwks import JwksCache
from gateway.call.exchange_limits import ExchangeShares
from gateway.call.hold_settings import ClientRule, HoldSettings, TaskOffer
from gateway.call.judging import config_objection
from gateway.call.metrics import Metrics
from gateway.call.settings import ProxySettings
from gateway.config.options import (
    ClientOptions,
    Config,
    Duration,
    ServerOptions,
    is_off,
    parse_duration,
    parse_size,
)
from gateway.config.server_identity import compute_identity, describe_location
from gateway.hold.request_state import Seals
from gateway.hold.running import Forwarder
from gateway.policy.compiling import compile_policy
from gateway.policy.limits import Windows
from gateway.proxy import Proxy
from gateway.tools.catalogue import Catalogue, Override, Tool
from gateway.tools.classify.risk import Category, Risk
from gateway.tools.classify.severity import Severity
from gateway.tools.pins import ChangeAction, Pins
from gateway.upstreams import Upstream
from gateway.upstreams.credentials import Credentials, FixedCredentials
from gateway.upstreams.http import ConnectionPools, HttpUpstream, open_client_session
from gateway.upstreams.oauth import ClientCredentials, OAuthClient
from gateway.upstreams.replaceable import ReplaceableUpstream
from gateway.upstreams.requests import KINDS, RequestFilter
from gateway.upstreams.sse import SseServer, SseUpstream
from gateway.upstreams.stdio import ServerCommand, StdioUpstream

#: Seconds that running calls get to end when the gateway stops.
GRACE = 20.0
#: The secrets of the gateway's own that the store keeps.
SECRETS = ("rounds", "identity")
#: How much of the store's disk may be used, from 0 to 1, until the gateway is not ready.
DISK_FULL = 0.85
#: The store that keeps nothing.
MEMORY = "memory:"
log = logging.getLogger("okayed")


def new_id() -> CallId:
    """Return a new call id; ids sort by time."""
    return CallId(f"hold_{str(ULID()).lower()}")


class Gateway:
    """Everything of a running gateway but its listeners and channels. Made by `assembled`."""

    def __init__(
        self,
        config: Config,
        store: Store,
        http: aiohttp.ClientSession,
        pools: ConnectionPools,
        windows: Windows,
        pins: Pins,
        secrets: Mapping[str, bytes],
        clock: EffectiveClock,
        *,
        embedded: bool = False,
        disk_used: Callable[[], float],
    ) -> None:
        self.config = config
        #: Whether it is inside an `okayed stdio`. Then its servers are asked for nothing before a client needs them.
        self.embedded = embedded
        self._secrets = secrets
        self._started_in = str(Path.cwd())
        self.store = store
        self.clock = clock
        self.service = ApprovalService(
            store, build_directory(config), clock=clock, wall=clock.wall, monotonic=clock.monotonic
        )
        self.service.quotas = build_quotas(config)
        self._pins = pins
        self.catalogue = Catalogue(clock, pins, self._tool_changed)
        self.forwarder = Forwarder(self.service, self.catalogue.mark_stale)
        # One for each address, so that a changed config does not ask for keys that are there.
        self._jwks = cache(lambda url: JwksCache(url, http, clock))
        self.agents = Agents(config, self._jwks, clock)
        self._disk_used = disk_used
        self.metrics = Metrics(disk_used)
        self.checkpoints = Checkpoints(
            store, build_checkpoint_target(config.audit.checkpoint, http, clock.wall)
        )
        self._http = http
        self._pools = pools
        self._upstreams: dict[str, ReplaceableUpstream] = {}
        #: Whether every server was asked for its tools once, whatever came of it.
        self.discovery_done = asyncio.Event()
        #: Whether it is about to stop, so that no more clients should be sent here.
        self._draining = False
        #: When, on the loop's clock, running calls are cut; None as long as the gateway does not stop.
        self._ends_at: float | None = None
        self.proxy = Proxy(
            settings=self._settings(config),
            service=self.service, catalogue=self.catalogue, windows=windows, forwarder=self.forwarder, metrics=self.metrics,
            new_id=new_id, seals=self.seals,
        )  # fmt: skip
        self._serve(config)

    def seals(self) -> Seals:
        """Return what seals the states that clients carry."""
        return _build_seals(tuple(self.config.approvals.state_keys), self._secrets["rounds"])

    async def adopt(self, config: Config) -> None:
        """Make *config* the one that counts from now on. Servers that stay the same keep their connections."""
        was, self.config = self.config, config
        leaving = [*self._retired(config), *self._renewed(was, config)]
        self._serve(config)
        self.proxy.adopt(self._settings(config))
        self.agents = Agents(config, self._jwks, self.clock)
        self.service.directory = build_directory(config)
        self.service.quotas = build_quotas(config)
        await self._void_impossible_calls()
        for upstream in leaving:
            await upstream.close()

    def _retired(self, config: Config) -> Iterator[Upstream]:
        """Forget each server that is another in *config*, or not there; yields its connection."""
        identities = self._identities(config)
        for name, before in self.proxy.settings.identities.items():
            if identities.get(name) != before:
                self.catalogue.forget(name)
                yield self._upstreams.pop(name)

    def _renewed(self, was: Config, config: Config) -> Iterator[Upstream]:
        """Reach each server that stays the same, but has a new token, say, as *config* says; yields its old connection."""
        for name, renewed in self._upstreams.items():
            options = config.servers[name]
            if _connection_options(was.servers[name]) != _connection_options(options):
                self.catalogue.mark_stale(name)
                yield renewed.renew(build_upstream(name, options, self._http, self._pools, self.clock))

    async def bind(self) -> None:
        """Bind calls and pins of before to their servers; then void each call whose server is another than it was held for."""
        settings = self.proxy.settings
        self._pins.bind(settings.identities)
        for held in await self.service.open_calls():
            if not held.identity and (server := held.call.server) in settings.identities:
                await self.service.bind_server(
                    held.id, settings.identities[server], settings.addresses[server]
                )
        await self._void_impossible_calls()

    async def _void_impossible_calls(self) -> None:
        """Void each open call whose agent or server is not the one that it was held for."""
        for held in await self.service.open_calls():
            if why := config_objection(held, self.proxy.settings):
                await self.service.void(held.id, why)

    def _identities(self, config: Config) -> Mapping[str, str]:
        key = self._secrets["identity"]
        return {
            name: compute_identity(server, key, self._started_in) for name, server in config.servers.items()
        }

    def _serve(self, config: Config) -> None:
        for name, options in config.servers.items():
            if name not in self._upstreams:
                self._upstreams[name] = ReplaceableUpstream(
                    build_upstream(name, options, self._http, self._pools, self.clock)
                )
        self._pins.configure(self._identities(config))
        self.catalogue.configure(
            self._upstreams, {name: build_overrides(server) for name, server in config.servers.items()}
        )

    def _settings(self, config: Config) -> ProxySettings:
        return ProxySettings(
            policy=compile_policy(config),
            upstreams=self._upstreams,
            identities=self._identities(config),
            addresses={name: describe_location(server) for name, server in config.servers.items()},
            holds=build_hold_settings(config),
            shares=build_exchange_shares(config),
            may_use=build_access_check(config),
            requesters=build_directory(config).of_owner,
            pin=ChangeAction(config.pin),
            annotate=config.annotate,
            audit_allowed=config.audit.allowed,
        )

    def _tool_changed(self, server: str, tool: Tool) -> None:
        """Tell of a tool that is not the accepted one, or has a flaw, and void what waits for it."""
        why = f"quarantined: {tool.defect}" if tool.defect else "its definition is not the accepted one"
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

    def accept(self, server: str, tool: str, who: str) -> list[str]:
        """Accept the definitions that the tools of a server have now (all of them when *tool* is ""); returns which."""
        changed = [
            one for one in self.catalogue.listed_tools(server) if one.accepted and tool in ("", one.name)
        ]
        for one in changed:
            self.catalogue.accept(server, one)
            event = AuditEvent(
                at=self.clock.wall(), kind="tool.accepted", actor=who, server=server, tool=one.name, detail={"now": one.hash},
            )  # fmt: skip
            self.store.post(event)
        return [one.name for one in changed]

    def clock_problem(self) -> str | None:
        """Return what is wrong with the machine's clock and how to mend it, or None."""
        if self.clock.behind <= TOLERANCE:
            return None
        return (
            f"clock: this machine's clock is {self.clock.behind:.0f} s behind the time that was reached before."
            " Deadlines go by the later time. Set the clock right; if it was ahead before, stop the gateway and run"
            " okayed check --reset-clock."
        )

    async def ready(self) -> str | None:
        """Return why calls cannot be judged and held now, or None."""
        if self._draining:
            return "stopping"
        try:
            await self.store.check()
            used = self._disk_used()
        except Exception as error:  # noqa: BLE001  (whatever is wrong with the store, the answer is "not ready")
            return f"store: {error}"
        if used >= DISK_FULL:
            return f"store: its disk is {used:.0%} full; make room on it"
        if problem := self.clock_problem():
            return problem
        return (
            None
            if self.discovery_done.is_set() or self.embedded
            else "servers: not all of them have been asked for their tools yet"
        )

    async def refresh_tools(self) -> None:
        """Ask each server whose tools are not known, or may be others by now; one that cannot say keeps nobody from the others."""
        await self.catalogue.refresh_stale(only_asked=self.embedded)
        self.discovery_done.set()

    async def drain(self) -> None:
        """Serve on for a while when asked to stop, so that a balancer that looks at /readyz sends its clients elsewhere.

        No balancer stands before a gateway inside an `okayed stdio`, and a `run` may wait for its store.
        """
        if not self._draining:
            self._draining = True
            off = self.embedded or is_off(self.config.drain)
            await asyncio.sleep(0.0 if off else parse_duration(self.config.drain))

    async def stop(self) -> float:
        """Begin nothing more, and tell who waits for people to ask again; returns the seconds that running calls have."""
        now = asyncio.get_running_loop().time()
        if self._ends_at is None:
            self._ends_at = now + GRACE
            await self.proxy.close()
        return max(0.0, self._ends_at - now)

    async def cut(self) -> None:
        """Let running calls end, then end the streams that clients take up again at the next gateway."""
        await self.forwarder.finish(await self.stop())
        self.proxy.cut()

    async def close(self) -> None:
        """Let running calls end, then end the servers."""
        await self.cut()
        with suppress(StoreError):  # then the time of an earlier commit is what the next start goes on from
            self.store.keep_time(self.clock())
        await asyncio.gather(*(upstream.close() for upstream in self._upstreams.values()))


def measure_disk_use(folder: Path) -> float:
    """Return how much of the disk of a folder is used, from 0 to 1; what is reserved for root does not count."""
    found = shutil.disk_usage(folder)
    return found.used / (found.used + found.free)


@asynccontextmanager
async def assemble(
    config: Config,
    clock: Clock = time.time,
    monotonic: Clock = time.monotonic,
    *,
    accepted: Iterable[Pin] = (),
    restored: bool = False,
    opening: Callable[..., Awaitable[Store]] | None = None,
    embedded: bool = False,
    disk: Callable[[Path], float] = measure_disk_use,
) -> AsyncIterator[Gateway]:
    """Build everything but the listeners and channels: what `run`, `stdio`, `tools` and `demo` have in common.

    *clock* is the wall clock. *accepted* are definitions of tools that count beside those in the store. *restored* takes
    the store for a copy that was put back. *opening* opens it in another way than `open_store`. *inside* is a gateway
    inside an `okayed stdio`. *disk* says how much of a folder's disk is used, from 0 to 1.
    """
    async with AsyncExitStack() as stack:
        store = await (opening or open_store)(config, restored=restored)
        stack.push_async_callback(store.close)
        effective = EffectiveClock(clock, monotonic, await store.highest_time())
        http = await stack.enter_async_context(open_client_session())
        pools = ConnectionPools()
        stack.push_async_callback(pools.close)
        gateway = Gateway(
            config,
            store,
            http,
            pools,
            Windows(await store.hits(effective())),
            Pins(store, [*await store.pins(), *accepted]),
            {name: await store.secret(name) for name in SECRETS},
            effective,
            embedded=embedded,
            disk_used=(lambda: 0.0)
            if config.store == MEMORY
            else partial(disk, database_path(config.store).absolute().parent),
        )
        await recovery.record_start(gateway.service, await gateway.checkpoints.last(), forced=restored)
        stack.push_async_callback(gateway.checkpoints.keep)
        stack.push_async_callback(gateway.close)
        await gateway.bind()
        yield gateway


def build_access_check(config: Config) -> Callable[[str, str], bool]:
    """Return what says whether an agent of this name may use a server."""
    named = {agent.name: agent.servers for agent in config.agents}
    anybody = any(issuer.any_subject for issuer in config.jwt) or not (config.agents or config.jwt)

    def may_use(agent: str, server: str) -> bool:
        if agent not in named:
            return anybody
        servers = named[agent]
        return servers is None or server in servers

    return may_use


@lru_cache(maxsize=1)
def _build_seals(keys: tuple[str, ...], secret: bytes) -> Seals:
    return Seals([key.encode() for key in keys] or [secret])


def build_hold_settings(config: Config) -> HoldSettings:
    """Return what a config says about holding."""
    asked = config.approvals
    return HoldSettings(
        hold_for=None if asked.hold_for == "auto" else parse_duration(asked.hold_for),
        clients={name: _client_rule(options) for name, options in asked.clients.items()},
        tasks=TaskOffer(asked.tasks),
        cancel_on_disconnect=asked.on_disconnect == "cancel",
        link=(config.inbox.url or "") if asked.notify_requester else "",
        answer_within={
            name: parse_duration(server.answer_within)
            for name, server in config.servers.items()
            if server.answer_within is not None
        },
    )


def _client_rule(options: Duration | ClientOptions) -> ClientRule:
    if not isinstance(options, ClientOptions):
        return ClientRule(wait=parse_duration(options))
    wait = None if options.wait is None else parse_duration(options.wait)
    return ClientRule(wait=wait, as_result=options.waiting == "result")


def build_quotas(config: Config) -> Quotas:
    """Return how many held calls a config lets agents have, and how large."""
    limits = config.limits
    return Quotas(
        open=limits.open,
        open_per_agent=limits.open_per_agent,
        bytes=parse_size(limits.bytes),
        bytes_per_agent=parse_size(limits.bytes_per_agent),
        bytes_per_agent_hour=parse_size(limits.bytes_per_agent_hour),
    )


def build_exchange_shares(config: Config) -> ExchangeShares:
    """Return how many exchanges a config lets one agent have at once."""
    limits = config.limits
    return ExchangeShares(
        requests=limits.exchanges_per_agent,
        streams=limits.streams_per_agent,
        bodies=parse_size(limits.bodies_per_agent),
    )


async def open_store(config: Config, *, restored: bool = False) -> Store:
    """Open the store that the config names; raises `StoreError`."""
    key = (config.store_key or "").encode()
    if config.store == MEMORY:
        return MemoryStore(chain_key=key)
    from approvals.store.sqlite.store import SqliteStore

    return await SqliteStore.open(database_path(config.store), chain_key=key, restored=restored)


def database_path(where: str) -> Path:
    """Return the file of a `sqlite:///` store."""
    return Path(where.removeprefix("sqlite:///"))


def build_directory(config: Config) -> Directory:
    """Return the approvers of a config."""
    return Directory(
        Approver(name=one.name, email=one.email, slack=one.slack, token_sha256=one.token_sha256)
        for one in config.approvers
    )


def build_upstream(
    name: str, options: ServerOptions, http: aiohttp.ClientSession, pools: ConnectionPools, clock: Clock
) -> Upstream:
    """Return the connection to one server, over which it may ask what the config lets it ask."""
    reached = _reached(name, options, http, pools, clock)
    return reached if KINDS.keys() <= {*options.may_ask} else RequestFilter(name, reached, options.may_ask)


def _reached(
    name: str, options: ServerOptions, http: aiohttp.ClientSession, pools: ConnectionPools, clock: Clock
) -> Upstream:
    if options.url is None:
        return StdioUpstream(
            ServerCommand(name=name, argv=options.command or [], env=options.env, cwd=options.cwd), clock
        )
    own, its = build_credentials(options, http, clock), pools.of(name, options.connections)
    if options.transport == "sse":
        source = SseServer(
            name=name, url=options.url, credentials=own, http=its.requests, streams=its.streams
        )
        return SseUpstream(source, clock)
    return HttpUpstream(options.url, own, its.requests, its.streams)


def build_credentials(options: ServerOptions, http: aiohttp.ClientSession, clock: Clock) -> Credentials:
    """Return what a server wants to see: the headers of the config, and a token where it says how to get one."""
    if options.oauth is None:
        return FixedCredentials(options.headers)
    client = OAuthClient(
        token_url=options.oauth.token_url,
        id=options.oauth.client_id,
        secret=options.oauth.client_secret,
        scope=options.oauth.scope,
        resource=options.oauth.resource or options.url or "",
    )
    return ClientCredentials(client, http, clock, extra_headers=options.headers)


def _connection_options(options: ServerOptions) -> ServerOptions:
    """Return what a config says of how a server is reached."""
    return msgspec.structs.replace(options, tools={}, connections=1, answer_within=None)


def build_overrides(server: ServerOptions) -> Mapping[str, Override]:
    """Return the operator's word about a server's tools."""
    return {
        name: Override(
            category=Category(tool.category) if tool.category else None,
            risk=Risk(tool.risk) if tool.risk else None,
            severity=Severity(tool.severity) if tool.severity else None,
        )
        for name, tool in server.tools.items()
    }
