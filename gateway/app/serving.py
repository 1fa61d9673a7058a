"""A gateway in the foreground: its listeners, channels, sweeps and the watch on its config, until it is told to stop."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web
from watchfiles import awatch

import approvals.web
from approvals.channels import Channel
from approvals.client_address import TrustedProxies
from approvals.errors import StoreError, StoreTaken
from approvals.notices import Notices
from approvals.store import Store
from approvals.store.run_lock import hold_run_lock
from approvals.web.options import WebOptions
from gateway.app import file_limit
from gateway.app.channels import build_channels
from gateway.app.config import load_config
from gateway.app.gateway import GRACE, Gateway, assemble
from gateway.app.stores import MEMORY, database_path, open_store
from gateway.app.tool_views import list_tool_views
from gateway.config.addresses import host_and_port
from gateway.config.options import Config, listen_address
from gateway.config.problems import ConfigProblems
from gateway.fronts import INSIDE, RUN, http
from gateway.fronts.connections import Connections
from gateway.fronts.listener import open_listener

#: Seconds between two sweeps.
SWEEP = 1.0
#: Seconds after which the start of a gateway inside a sidecar is over.
LATER = 10.0
#: Seconds for which a `run` waits for a store that the gateway inside a sidecar has: longer than calls under way get there.
HANDOVER = GRACE + 10.0
#: Seconds between two tries to open it.
LOOK = 0.2
#: What tells the gateway to stop.
SIGNALS = (signal.SIGTERM, signal.SIGINT)
log = logging.getLogger("okayed")


async def run(path: Path, *, restored: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; *restored* takes the store for a copy that was put back."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    config = load_config(path, os.environ)
    with take_turn(config):
        await _serve(path, config, stop, restored=restored)
    log.info("stopped")


def take_turn(config: Config) -> AbstractContextManager[None]:
    """Return the turn at the config's store; raises `StoreTaken` when another `run` has it."""
    return nullcontext() if config.store == MEMORY else hold_run_lock(database_path(config.store))


async def open_store_in_turn(config: Config, *, stop: asyncio.Event, restored: bool = False) -> Store:
    """Open the store once the gateway inside a sidecar has let go of it: it sees whose turn it is. Raises `StoreError`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + HANDOVER
    while True:
        try:
            return await open_store(config, restored=restored)
        except StoreTaken:
            if stop.is_set() or loop.time() >= until:
                raise
        await asyncio.sleep(LOOK)


async def _serve(path: Path, config: Config, stop: asyncio.Event, *, restored: bool) -> None:
    loop = asyncio.get_running_loop()
    opening = partial(open_store_in_turn, stop=stop)
    async with (
        assemble(config, restored=restored, opening=opening) as gateway,
        serve(gateway) as listening,
    ):
        log.info("agents: %s   inbox: %s", listening.agents, listening.inbox)
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(watch_config(path, gateway, stop))
            await stop.wait()
            watch.cancel()
        for number in SIGNALS:
            loop.remove_signal_handler(number)  # a second one ends the process at once
        log.info("stopping; running calls get %.0f s", GRACE)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running gateway is reached."""

    agents: str
    inbox: str
    login: approvals.web.Login


@asynccontextmanager
async def serve(gateway: Gateway) -> AsyncIterator[Endpoints]:
    """Open the listeners and keep the loops running for as long as the context is open."""
    config = gateway.config
    async with AsyncExitStack() as stack:
        inbox_url = config.inbox.url or f"http://{listen_address(config.inbox.listen)}"
        # A link that people cannot open is worse than none: without a public address cards carry no link.
        channels, slack_actions = build_channels(config, config.inbox.url or "", gateway.clock.wall)
        inbox = approvals.web.build(
            gateway.service, build_web_options(config, inbox_url, slack_actions, gateway)
        )
        most = file_limit.divide_files(file_limit.raise_limit())
        agents = http.build_app(gateway.proxy, _listener_policy(gateway))
        agents_at = await stack.enter_async_context(
            open_listener(agents, config.listen, Connections("agents", most.agents))
        )
        inbox_at = await stack.enter_async_context(
            open_listener(inbox, config.inbox.listen, Connections("inbox", most.inbox))
        )
        await stack.enter_async_context(run_loops(gateway, channels, config.inbox.url or ""))
        # Comes first in the end: while calls still run people decide, and clients are answered, not refused.
        stack.push_async_callback(agents.shutdown)
        yield Endpoints(
            agents=f"http://{agents_at}/mcp/", inbox=f"http://{inbox_at}/", login=inbox[approvals.web.LOGIN]
        )


@asynccontextmanager
async def run_loops(gateway: Gateway, channels: Sequence[Channel], inbox_url: str) -> AsyncIterator[None]:
    """Wake who waits, sweep what is due, and keep every channel up to date."""
    notices = Notices(gateway.service, channels, url=inbox_url)
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(gateway.service.wakeups.follow(gateway.store)),
            tasks.create_task(sweep_calls(gateway)),
            tasks.create_task(notices.run()),
            tasks.create_task(refresh_tools(gateway)),
            tasks.create_task(gateway.checkpoints.run()),
            tasks.create_task(freeze_startup_objects(gateway)),
        ]
        for channel in channels:
            await channel.start(gateway.service)
        try:
            yield
        finally:
            for channel in channels:
                await channel.close()
            for task in running:
                task.cancel()


async def freeze_startup_objects(gateway: Gateway) -> None:
    """Keep the objects of the start out of garbage collections: they stay, and walking them delays every request."""
    await (asyncio.sleep(LATER) if gateway.embedded else gateway.discovery_done.wait())
    gc.collect()
    gc.freeze()
    try:
        await asyncio.Event().wait()
    finally:
        gc.unfreeze()


async def sweep_calls(gateway: Gateway) -> None:
    """Bring every open call to what it should be by now, again and again."""
    wrong = False
    while True:
        wrong = _log_clock(gateway.clock_problem(), told=wrong)
        try:
            open_calls = await gateway.service.sweep()
            gateway.proxy.tasks.attend_all(open_calls)
            gateway.metrics.opened(open_calls)
        except Exception:
            log.exception("a sweep failed; the next one tries again")
        await asyncio.sleep(SWEEP)


def _log_clock(problem: str | None, *, told: bool) -> bool:
    """Log a wrong clock when it goes wrong, and once more when it is right again; returns whether it is wrong."""
    if problem and not told:
        log.error("%s", problem)
    elif told and not problem:
        log.info("clock: it has caught up")
    return problem is not None


async def refresh_tools(gateway: Gateway) -> None:
    """Ask each server for its tools: at the start, and whenever it said that they changed."""
    while True:
        await gateway.refresh_tools()
        await asyncio.sleep(SWEEP)


async def watch_config(path: Path, gateway: Gateway, stop: asyncio.Event) -> None:
    """Adopt each good change of the config file; report a bad one and keep what counts."""
    # Where Kubernetes mounts a config, the file is a link through `..data`, and that is what is replaced.
    names = {path.name, "..data"}
    async for _ in awatch(
        path.parent, stop_event=stop, recursive=False, watch_filter=lambda _, changed: Path(changed).name in names,
    ):  # fmt: skip
        await reload_config(path, gateway)


async def reload_config(path: Path, gateway: Gateway) -> None:
    """Read the config again and use it when it is good."""
    try:
        config = load_config(path, os.environ)
    except ConfigProblems as problems:
        log.error("the config was changed but cannot be used; the one before stays:\n%s", problems)  # noqa: TRY400  (the sentence says all; a trace would bury it)
        return
    fixed = [name for name in _FIXED if getattr(config, name) != getattr(gateway.config, name)]
    try:
        await gateway.adopt(config)
    except StoreError as error:
        log.error("what waits could not be held against the changed config: %s", error)  # noqa: TRY400  (the sentence says all)
    log.info("the changed config counts from now on")
    if fixed:
        log.warning("a change of %s takes effect at the next start", ", ".join(fixed))


#: What cannot change while the gateway runs.
_FIXED = ("listen", "url", "hosts", "trusted_proxies", "store", "store_key", "inbox", "slack", "webhooks")


def build_web_options(
    config: Config, inbox_url: str, slack_actions: Callable[[web.Request], Awaitable[web.StreamResponse]] | None, gateway: Gateway,
) -> WebOptions:  # fmt: skip
    """Return how the inbox of this config is reached and by whom."""
    header = config.inbox.login.proxy_header
    return WebOptions(
        url=inbox_url,
        proxy_header=header.name if header else "",
        proxy_peers=tuple(header.from_) if header else (),
        proxies=TrustedProxies.parse(config.trusted_proxies),
        token_login=config.inbox.login.token,
        hosts=_lower_names([*config.hosts, _host(listen_address(config.inbox.listen))]),
        slack_actions=slack_actions,
        metrics=gateway.metrics.exposition,
        tools=lambda: list_tool_views(gateway),
        accept=gateway.accept,
    )


async def _stop(gateway: Gateway) -> float:
    await gateway.drain()
    return await gateway.stop()


def _listener_policy(gateway: Gateway) -> http.ListenerPolicy:
    return http.ListenerPolicy(
        agents=lambda: gateway.agents,
        hosts=agent_hosts(gateway.config),
        ready=gateway.readiness_problem,
        stop=lambda: _stop(gateway),
        parked=lambda: gateway.proxy.parked,
        cut=gateway.cut,
        clock=gateway.clock,
        role=INSIDE if gateway.embedded else RUN,
        proxies=TrustedProxies.parse(gateway.config.trusted_proxies),
    )


def agent_hosts(config: Config) -> frozenset[str]:
    """Return the names, beside this machine's own, by which the agents' listener is addressed."""
    return _lower_names(
        [*config.hosts, _host(listen_address(config.listen)), urlsplit(config.url or "").hostname]
    )


def _host(listen: str) -> str | None:
    place = host_and_port(listen)
    return place and place[0]


def _lower_names(names: Iterable[str | None]) -> frozenset[str]:
    return frozenset(name.lower() for name in names if name)
