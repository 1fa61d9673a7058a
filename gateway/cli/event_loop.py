"""Runs a coroutine for a command."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from gateway.errors import first_error

Result = TypeVar("Result")


def run_async(job: Coroutine[Any, Any, Result]) -> Result:
    """Run *job* in a new event loop; raises the first error of a task group, and exits 130 when interrupted."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(job)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    except BaseExceptionGroup as group:
        raise first_error(group) from group


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory; None on Windows, where asyncio's loop runs."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
