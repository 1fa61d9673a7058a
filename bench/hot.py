"""Compares the processor time of an allowed call through Okayed with that of a bare aiohttp relay.

    python bench/hot.py [--fail-above RATIO] [--rounds N] [--calls N] [--tree DIR] [--json]

Relay and gateway take turns before one server, with 32 connections. Processor time is steadier than time on the clock,
but other work on the machine adds to it; so the lowest ratio of the rounds decides, and a round is repeated once if
other processes used more than FOREIGN cores. Exits with 1 if the lowest ratio is above `--fail-above`.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop
from load import Load, Measured, open_load
from processes import ROOT, ForeignLoad, read_processor_seconds
from routes import OKAYED, RELAY, Route, list_routes, run_route, run_server

CONNECTIONS = 32
#: Calls before the first round: they fill the caches, and the collector's first generations.
WARM_UP = 2000
GOAL = 0.35
#: Cores used by other processes above which a round is repeated, and how often.
FOREIGN, REPEATS = 0.5, 1


@dataclass(frozen=True)
class Round:
    """One round of a route: microseconds of processor time for each call, and the latencies."""

    processor: float
    calls: Measured


def lowest_processor(rounds: Sequence[Round]) -> float:
    return min(one.processor for one in rounds)


def compute_ratios(rounds: Mapping[str, Sequence[Round]]) -> Sequence[float]:
    """Return the ratio of Okayed's processor time to the relay's in each round, in ascending order."""
    pairs = zip(rounds[OKAYED], rounds[RELAY], strict=True)
    return sorted(okayed.processor / relay.processor for okayed, relay in pairs)


def is_too_slow(ratio: float, most: float | None) -> bool:
    return most is not None and not ratio <= most


def format_row(name: str, rounds: Sequence[Round]) -> str:
    every = " ".join(f"{one.processor:.1f}" for one in rounds)
    p99, rate = min(one.calls.p99 for one in rounds), max(one.calls.rate for one in rounds)
    return f"{name:14} {lowest_processor(rounds):8.1f} {rate:9.0f} {p99:8.2f}   {every}"


async def measure_round(route: Route, load: Load, count: int, server: Route) -> Round:
    """Measure one round; repeat it if other processes were busy."""
    for _ in range(1 + REPEATS):
        before, foreign = read_processor_seconds(route.pid), ForeignLoad([route.pid, server.pid])
        calls = await load.run(count)
        done = Round((read_processor_seconds(route.pid) - before) / count * 1e6, calls)
        if foreign.cores <= FOREIGN:
            break
    return done


async def measure(names: Sequence[str], rounds: int, count: int, tree: Path) -> Mapping[str, Sequence[Round]]:
    """Measure the routes in turn; they run all the time, but only one works."""
    found: dict[str, list[Round]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder, run_server() as server:
        async with AsyncExitStack() as stack:
            loads = {}
            for name in names:
                route = await stack.enter_async_context(
                    run_route(name, list_routes(tree)[name], Path(folder), server.port)
                )
                load = await stack.enter_async_context(
                    open_load(route.port, CONNECTIONS, route.build_calls())
                )
                await load.run(WARM_UP)
                loads[name] = route, load
            for _ in range(rounds):
                for name, (route, load) in loads.items():
                    found[name].append(await measure_round(route, load, count, server))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fail-above", type=float, metavar="RATIO", help="exit with 1 above this ratio")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=5000, help="calls of a round")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout whose gateway is measured")
    parser.add_argument("--json", action="store_true", help="print one line of JSON as well")
    options = parser.parse_args()
    names = [name for name in ("nginx", RELAY, OKAYED) if name in list_routes()]
    rounds = uvloop.run(measure(names, options.rounds, options.calls, options.tree))
    ratios = compute_ratios(rounds)
    print(f"{'':14} {'us/call':>8} {'calls/s':>9} {'p99 ms':>8}   us/call of each round")
    for name in names:
        print(format_row(name, rounds[name]))
    print(
        f"{OKAYED} / {RELAY}: lowest ratio {ratios[0]:.2f}, median {statistics.median(ratios):.2f} (goal {GOAL})"
    )
    if options.json:
        print(
            json.dumps(
                {"ratio": round(ratios[0], 3), **{name: lowest_processor(rounds[name]) for name in names}}
            )
        )
    if is_too_slow(ratios[0], options.fail_above):
        print(f"the lowest ratio is above {options.fail_above}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
