"""Serves a gateway: opens its listeners and channels, and runs its background loops."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from approvals.channels import Channel
from approvals.client_address import TrustedProxies
from approvals.errors import StoreError
from approvals.notices import Notices
from approvals.problem_log import ProblemLog
from gateway.app import file_limit
from gateway.app.channels import build_channels
from gateway.app.gateway import Gateway
from gateway.app.signals import follow_signals
from gateway.config.addresses import host_names
from gateway.config.options import Config, listen_address
from gateway.fronts import EMBEDDED, RUN
from gateway.fronts.agents_listener import open_agents_listener
from gateway.fronts.connection_limits import Connections
from gateway.fronts.endpoint import Endpoint, ListenerPolicy
from gateway.fronts.late_application import open_late_listener

if TYPE_CHECKING:
    from aiohttp import web

    from approvals.web.options import Handler

#: Seconds between two sweeps.
SWEEP = 1.0
#: The thresholds of garbage collection while a gateway runs (docs.python.org/3/library/gc.html#gc.set_threshold). A full
#: collection looks at every open call: 90 ms for 10,000 of them. Few are needed, since calls end without cycles.
THRESHOLDS = (2_000, 5, 100)
#: After so many more open calls than ever before, these too are excluded from garbage collection.
FREEZE_STEP = 1000
#: Seconds to wait until an embedded gateway has surely started.
STARTUP = 10.0
log = logging.getLogger("okayed")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The URLs of a running gateway."""

    agents: str
    inbox: str


@asynccontextmanager
async def serve(gateway: Gateway) -> AsyncIterator[Endpoints]:
    """Open the listeners and run the loops while the context is open."""
    config = gateway.config
    async with AsyncExitStack() as stack:
        inbox_url = config.inbox.url or f"http://{listen_address(config.inbox.listen)}"
        # Without a public address cards get no link: a broken link is worse than none.
        channels, slack_actions = build_channels(config, config.inbox.url or "", gateway.clock.wall)
        shares = file_limit.divide_files(file_limit.raise_limit())
        agents = Endpoint(gateway.proxy, _listener_policy(gateway))
        agents_address = await stack.enter_async_context(
            open_agents_listener(agents, config.listen, Connections("agents", shares.agents))
        )
        inbox_address = await stack.enter_async_context(
            open_late_listener(
                partial(_build_inbox, gateway, config, inbox_url, slack_actions),
                config.inbox.listen,
                Connections("inbox", shares.inbox),
            )
        )
        await stack.enter_async_context(run_loops(gateway, channels, config.inbox.url or ""))
        # Runs first on exit: while calls finish, people can still decide and clients still get answers.
        stack.push_async_callback(agents.finish)
        yield Endpoints(
            agents=f"http://{agents_address}/mcp/",
            inbox=f"http://{inbox_address}/",
        )


def _build_inbox(
    gateway: Gateway, config: Config, url: str, slack_actions: "Handler | None"
) -> "web.Application":
    from gateway.app.inbox import build_app

    return build_app(gateway, config, url, slack_actions)


@asynccontextmanager
async def run_loops(gateway: Gateway, channels: Sequence[Channel], inbox_url: str) -> AsyncIterator[None]:
    """Run the background loops and the channels while the context is open."""
    notices = Notices(gateway.service, gateway.store, channels, url=inbox_url)
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(follow_signals(gateway)),
            tasks.create_task(sweep_calls(gateway)),
            tasks.create_task(notices.run()),
            tasks.create_task(refresh_tools(gateway)),
            tasks.create_task(gateway.checkpoints.run()),
            tasks.create_task(limit_garbage_collection(gateway)),
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


async def limit_garbage_collection(gateway: Gateway) -> None:
    """Exclude startup objects from garbage collection, and make it rare: traversing objects delays requests."""
    await (asyncio.sleep(STARTUP) if gateway.embedded else gateway.discovery_done.wait())
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    try:
        await asyncio.Event().wait()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def freeze_open_calls(open_calls: int, frozen: int) -> int:
    """Exclude open calls from garbage collection once there are FREEZE_STEP more than *frozen*; returns the new number.

    A call that ends is freed all the same. A cycle that is frozen stays, so calls are frozen only at a new peak.
    """
    if open_calls < frozen + FREEZE_STEP:
        return frozen
    gc.collect(0)
    gc.freeze()
    return open_calls


async def sweep_calls(gateway: Gateway) -> None:
    """Expire due calls, attend to tasks, and count open calls, every SWEEP seconds."""
    reported, frozen = False, 0
    problems = ProblemLog(log, "the sweep of held calls")
    while True:
        reported = log_clock_problem(gateway.clock_problem(), reported=reported)
        try:
            await gateway.service.sweep()
            gateway.proxy.tasks.attend_all(await gateway.store.open_tasks())
            counts = await gateway.store.open_counts()
            gateway.metrics.set_open_calls(counts)
            frozen = freeze_open_calls(sum(counts.values()), frozen)
            problems.clear()
        except StoreError as error:
            problems.report(error)
        except Exception:
            log.exception("a sweep failed; the next one retries")
        await asyncio.sleep(SWEEP)


def log_clock_problem(problem: str | None, *, reported: bool) -> bool:
    """Log when a clock problem begins and when it ends; returns whether there is one."""
    if problem and not reported:
        log.error("%s", problem)
    elif reported and not problem:
        log.info("clock: the clock has caught up")
    return problem is not None


async def refresh_tools(gateway: Gateway) -> None:
    """Refresh the tool lists at startup, and whenever a server reports a change."""
    while True:
        await gateway.refresh_tools()
        await asyncio.sleep(SWEEP)


async def _stop(gateway: Gateway) -> float:
    await gateway.drain()
    return await gateway.stop()


def _listener_policy(gateway: Gateway) -> ListenerPolicy:
    return ListenerPolicy(
        agents=lambda: gateway.agents,
        hosts=agent_hosts(gateway.config),
        ready=gateway.readiness_problem,
        stop=lambda: _stop(gateway),
        lingering=lambda: gateway.proxy.lingering,
        end_lingering=gateway.end_lingering,
        clock=gateway.clock,
        role=EMBEDDED if gateway.embedded else RUN,
        proxies=TrustedProxies.parse(gateway.config.trusted_proxies),
    )


def agent_hosts(config: Config) -> frozenset[str]:
    """Return the accepted Host names of the agents' listener, besides loopback names."""
    return host_names(listen_address(config.listen), [*config.hosts, urlsplit(config.url or "").hostname])
