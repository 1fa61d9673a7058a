"""Compares allowed calls through Okayed with direct calls, nginx, a bare aiohttp relay and FastMCP's proxy.

    python bench/calls.py [--rounds N] [--seconds N] [--sse] [--modern] [--only NAMES] [--tree DIR]

Each round starts the routes one after the other, on this machine, and calls each with 1 and with 32 connections, and
with 100 KB of arguments. The load checks every answer. Compare ratios, not absolute figures: load, server and route
share the cores. Prints two tables: the best figure of the rounds, and their median.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from load import HANDSHAKE, MODERN, Load, open_load
from processes import ROOT, read_memory, read_processor_seconds
from routes import RELAY, Route, Run, list_routes, run_route, run_server

MANY = 32
LARGE = 100_000
#: The share of `--seconds` for a warm-up, and for the large calls.
WARM_UP, SHORT = 0.25, 0.5


@dataclass(frozen=True)
class Figures:
    """One round of a route. The field's name is its column; the routes are compared by `rate` and `processor`."""

    rate_of_one: float
    p50_of_one: float
    p99_of_one: float
    rate: float
    p50: float
    p99: float
    processor: float
    large_p50: float
    memory: float
    start: float


#: The columns: their titles, their formats, and which of several rounds is the best.
COLUMNS: Mapping[str, tuple[str, str, Callable[[Sequence[float]], float]]] = {
    "rate_of_one": ("1: calls/s", ".0f", max),
    "p50_of_one": ("p50 ms", ".2f", min),
    "p99_of_one": ("p99 ms", ".2f", min),
    "rate": (f"{MANY}: calls/s", ".0f", max),
    "p50": ("p50 ms", ".2f", min),
    "p99": ("p99 ms", ".2f", min),
    "processor": ("us/call", ".1f", min),
    "large_p50": ("100 KB: p50 ms", ".2f", min),
    "memory": ("MB", ".0f", min),
    "start": ("start s", ".2f", min),
}


async def measure_route(route: Route, seconds: float, revision: str) -> Figures:
    memory = read_memory(route.pid) / 1000
    calls = route.build_calls(revision=revision)
    async with AsyncExitStack() as stack:

        async def connect(connections: int, prepared: Sequence) -> Load:
            load = await stack.enter_async_context(open_load(route.port, connections, prepared))
            await load.run(seconds=seconds * WARM_UP)
            return load

        one = await (await connect(1, calls)).run(seconds=seconds)
        load = await connect(MANY, calls)
        before = read_processor_seconds(route.pid)
        many = await load.run(seconds=seconds)
        processor = (read_processor_seconds(route.pid) - before) / len(many.took) * 1e6
        large_calls = route.build_calls(range(LARGE, LARGE + 1), revision)
        large = await (await connect(1, large_calls)).run(seconds=seconds * SHORT)
    return Figures(
        one.rate, one.p50, one.p99, many.rate, many.p50, many.p99, processor, large.p50, memory, route.start
    )


async def measure(
    routes: Mapping[str, Run], rounds: int, seconds: float, *, sse: bool, revision: str
) -> Mapping[str, Sequence[Figures]]:
    """Measure all routes in interleaved rounds. The first row is the server itself."""
    found: dict[str, list[Figures]] = {name: [] for name in ("direct", *routes)}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder, run_server(sse=sse) as server:
            for name, run in routes.items():
                async with run_route(name, run, Path(folder), server.port) as route:
                    found[name].append(await measure_route(route, seconds, revision))
            found["direct"].append(await measure_route(server, seconds, revision))
    return found


def reduce_rounds(rounds: Sequence[Figures], *, best: bool) -> Mapping[str, float]:
    """Return the best or the median figure of each column."""
    columns = {name: [getattr(figures, name) for figures in rounds] for name in COLUMNS}
    return {
        name: COLUMNS[name][2](column) if best else statistics.median(column)
        for name, column in columns.items()
    }


def format_table(found: Mapping[str, Sequence[Figures]], *, best: bool) -> Iterator[str]:
    """Yield the lines of a Markdown table, with ratios of calls/s to nginx and of processor time to the relay."""
    rows = {name: reduce_rounds(rounds, best=best) for name, rounds in found.items()}
    titles = [title for title, _, _ in COLUMNS.values()]
    yield f"| {' | '.join(['', *titles, 'calls/s of nginx', 'us of the relay'])} |"
    yield f"|{' --- |' * (len(COLUMNS) + 3)}"
    for name, row in rows.items():
        cells = [format(row[column], form) for column, (_, form, _) in COLUMNS.items()]
        rate = f"{row['rate'] / rows['nginx']['rate']:.2f}" if "nginx" in rows else ""
        processor = f"{row['processor'] / rows[RELAY]['processor']:.2f}" if RELAY in rows else ""
        yield f"| {' | '.join([name, *cells, rate, processor])} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each route is called in a round")
    parser.add_argument("--sse", action="store_true", help="the server answers with event streams")
    parser.add_argument(
        "--modern", action="store_true", help=f"calls of revision {MODERN} in place of {HANDSHAKE}"
    )
    parser.add_argument("--only", default="", help="the routes to measure, separated by commas")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout whose gateway is measured")
    parser.add_argument("--json", action="store_true", help="print one line of JSON as well")
    options = parser.parse_args()
    routes = list_routes(options.tree)
    if options.only:
        routes = {name: run for name, run in routes.items() if name in options.only.split(",")}
    revision = MODERN if options.modern else HANDSHAKE
    found = uvloop.run(measure(routes, options.rounds, options.seconds, sse=options.sse, revision=revision))
    for title, best in ((f"Best of {options.rounds} rounds", True), ("Median", False)):
        print(f"{title}, revision {revision}, {'event streams' if options.sse else 'JSON'}:\n")
        print(*format_table(found, best=best), "", sep="\n")
    if options.json:
        print(json.dumps({name: [asdict(figures) for figures in rounds] for name, rounds in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
