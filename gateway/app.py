"""The composition root: a config becomes a running application. The only file that knows concrete classes."""

import asyncio
import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from ulid import ULID

from approvals.channels import Channel
from approvals.identity import Directory
from approvals.model import Approver, CallId
from approvals.notices import Notices
from approvals.service import ApprovalService
from approvals.store import Store
from gateway import server
from gateway.agents import Agents
from gateway.catalogue import Catalogue, Override
from gateway.config import Config
from gateway.forward import Forward
from gateway.limits import Windows
from gateway.policy import compile_policy
from gateway.proxy import Proxy, Setting
from gateway.upstreams import Upstream
from gateway.upstreams.http import HttpUpstream, pool
from gateway.upstreams.stdio import Command, StdioUpstream

#: Seconds between sweeps, and that running calls get to end when the gateway stops.
SWEEP = 1.0
GRACE = 20.0
log = logging.getLogger("holdpoint")


def new_id() -> CallId:
    """Return a new call id; ids sort by time."""
    return CallId(f"hp_{str(ULID()).lower()}")


@dataclass(slots=True)
class Parts:
    """What a running application is made of."""

    config: Config
    store: Store
    service: ApprovalService
    catalogue: Catalogue
    proxy: Proxy
    agents: Agents
    upstreams: dict[str, Upstream]
    http: aiohttp.ClientSession


@asynccontextmanager
async def assembled(config: Config, clock: Callable[[], float] = time.time) -> AsyncIterator[Parts]:
    """Build everything but the listeners: what `run`, `stdio` and `tools` have in common."""
    async with AsyncExitStack() as stack:
        store = await open_store(config.store)
        stack.push_async_callback(store.close)
        http = await stack.enter_async_context(pool())
        service = ApprovalService(store, directory(config), clock=clock)
        forward = Forward(service)
        upstreams: dict[str, Upstream] = {}
        stack.push_async_callback(_close_all, upstreams)
        stack.push_async_callback(forward.finish, GRACE)
        windows = Windows(await store.hits(clock()))
        catalogue = Catalogue(clock)
        proxy = Proxy(
            setting=Setting(policy=compile_policy(config), upstreams=upstreams),
            service=service, catalogue=catalogue, windows=windows, forward=forward, clock=clock, new_id=new_id,
        )  # fmt: skip
        parts = Parts(config, store, service, catalogue, proxy, Agents(config), upstreams, http)
        apply(config, parts, clock)
        yield parts


def apply(config: Config, parts: Parts, clock: Callable[[], float]) -> list[Upstream]:
    """Make *config* the one that counts from now on; returns the upstreams it has no more use for."""
    ...
