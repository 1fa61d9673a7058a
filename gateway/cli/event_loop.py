"""Runs a coroutine for a command."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from gateway.errors import first_error

Result = TypeVar("Result")


#: Creates an event loop; None for asyncio's own.
LoopFactory = Callable[[], asyncio.AbstractEventLoop] | None


def run_async(job: Coroutine[Any, Any, Result], loop_factory: LoopFactory = None) -> Result:
    """Run *job* in a new event loop; raises the first error of a task group, and exits 130 when interrupted."""
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(job)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    except BaseExceptionGroup as group:
        raise first_error(group) from group


def find_fast_loop() -> LoopFactory:
    """Return uvloop's factory; None on Windows. It is for many connections: it costs a sidecar 2 MB."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: LoopFactory = uvloop.new_event_loop
    return factory
