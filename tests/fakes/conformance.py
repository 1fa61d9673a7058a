"""Runs the MCP conformance suite against a server, directly and through the gateway: the results must be equal.

`python conformance.py` prints the table and each difference, and exits 1 if there is one.
"""

import asyncio
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from npm import MODULES, NODE, install
from process import Person, free_ports, gateway_process, sha256, token

SERVER = Path(__file__).with_name("everything.py")
#: The suites: the package and its options.
SUITES = {
    "0.1.16 --suite active": ("conformance-0.1", "--suite", "active"),
    "0.2.0-alpha.12 --requirements 2025-11-25": ("conformance-0.2", "--requirements", "2025-11-25"),
    "0.2.0-alpha.12 --requirements 2026-07-28": ("conformance-0.2", "--requirements", "2026-07-28"),
    "0.2.0-alpha.12 --suite all": ("conformance-0.2", "--suite", "all"),
}
HOLDS = "policy: {default: allow, tools: {'*': {action: require_approval}}}"
#: The routes: past the gateway, through one that allows all calls, through one that holds all calls for a robot, and
#: through one that also offers tasks. The server has no tasks, so there the scenarios about tasks may differ.
WAYS = {
    "direct": "",
    "allowed": "policy: {default: allow}\napprovals: {tasks: off}",
    "held": f"{HOLDS}\napprovals: {{tasks: off}}",
    "held, with tasks": HOLDS,
}
#: Seconds after which the robot approves.
THINKING = 0.2

#: The routes on which no result may differ.
EQUAL = ("allowed", "held")

#: Scenario -> check -> the number of each status.
Verdicts = dict[str, dict[str, Counter]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of one suite on one route."""

    verdicts: Verdicts

    @property
    def counts(self) -> Counter:
        """The number of checks with each status."""
        return sum(
            (status for checks in self.verdicts.values() for status in checks.values()), start=Counter()
        )

    @property
    def failed(self) -> list[str]:
        """The scenarios in which a check failed."""
        return [
            name for name, checks in self.verdicts.items() if any(one["FAILURE"] for one in checks.values())
        ]

    def differences_from(self, other: "Outcome") -> list[str]:
        """Return the differences from *other*, in words."""
        said = []
        for scenario in sorted(self.verdicts.keys() | other.verdicts.keys()):
            ours, theirs = self.verdicts.get(scenario, {}), other.verdicts.get(scenario, {})
            said += [
                f"{scenario} {check}: {_words(ours.get(check))}, but {_words(theirs.get(check))}"
                for check in sorted(ours.keys() | theirs.keys())
                if ours.get(check) != theirs.get(check)
            ]
        return said


def _words(statuses: Counter | None) -> str:
    return "absent" if statuses is None else ", ".join(f"{n} {status}" for status, n in statuses.items())


#: (suite, way) -> outcome.
Measured = dict[tuple[str, str], Outcome]


async def run(suite: str, url: str) -> Outcome:
    """Run one suite against a server."""
    package, *options = SUITES[suite]
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            NODE, str(MODULES / package / "dist" / "index.js"), "server", "--url", url, *options, "-o", folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        found = {
            re.fullmatch(r"server-(.+?)-\d{4}-\d\d-\d\dT.*", one.parent.name)[1]: _statuses(one)
            for one in Path(folder).glob("*/checks.json")
        }
    assert found, said.decode()
    return Outcome(found)


def _statuses(file: Path) -> dict[str, Counter]:
    checks: dict[str, Counter] = {}
    for check in json.loads(file.read_text()):
        # Each frame that the suite saw is a check, too; their number is not a result.
        if check["status"] != "INFO":
            checks.setdefault(check["id"], Counter())[check["status"]] += 1
    return checks


@asynccontextmanager
async def everything() -> AsyncIterator[str]:
    """Run the server; yields its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}/mcp"
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def through_the_gateway(way: str, server: str, folder: Path) -> AsyncIterator[str]:
    """Run a gateway in front of the server, with a robot that approves held calls; yields the URL for agents."""
    agents, inbox = free_ports(2)
    config = folder / "okayed.yaml"
    config.write_text(
        f"listen: 127.0.0.1:{agents}\nstore: sqlite:///{folder}/store.db\nservers: {{everything: {{url: '{server}'}}}}\n"
        f"approvers: [{{name: robot, token_sha256: {sha256(token('robot'))}}}]\n"
        f"inbox: {{listen: '127.0.0.1:{inbox}'}}\n{WAYS[way]}\n"
    )
    config.chmod(0o600)
    async with gateway_process(config, agents, inbox) as gateway, Person(gateway.inbox, "robot") as person:
        robot = asyncio.ensure_future(approve_all(person))
        try:
            yield f"{gateway.agents}/mcp/everything"
        finally:
            robot.cancel()
            with suppress(asyncio.CancelledError):
                await robot


async def approve_all(person: Person) -> None:
    """Approve every held call, after a short delay."""

    async def approve(held: dict) -> None:
        await asyncio.sleep(THINKING)
        await person.post(held["id"], "approve", digest=held["digest"])

    seen: set[str] = set()
    async with asyncio.TaskGroup() as thinking, person.api.get(f"{person.inbox}/api/v1/events") as events:
        while True:
            for held in await person.calls("pending"):
                if held["id"] not in seen:
                    seen.add(held["id"])
                    thinking.create_task(approve(held))
            await events.content.readline()


async def measure(suites: Iterable[str] = SUITES, ways: Iterable[str] = WAYS) -> Measured:
    """Run each suite on each route, two routes at a time: the suites have short time limits."""
    install()
    measured: Measured = {}
    turn = asyncio.Semaphore(2)

    async def one(way: str) -> None:
        async with turn, everything_by(way) as url:
            for suite in suites:
                measured[suite, way] = await run(suite, url)

    await asyncio.gather(*(one(way) for way in ways))
    return measured


@asynccontextmanager
async def everything_by(way: str) -> AsyncIterator[str]:
    """Yield the URL of the server on this route."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(everything())
        if way != "direct":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url = await stack.enter_async_context(through_the_gateway(way, url, Path(folder)))
        yield url


async def differences(measured: Measured) -> list[str]:
    """Return each result that differs through the gateway in two runs: some depend on limits of half a second."""
    different = []
    for suite, way in measured:
        if way != "direct" and _differences(measured, suite, way):
            again = await measure([suite], [way])
            different += _differences({**measured, **again}, suite, way)
    return different


def _differences(measured: Measured, suite: str, way: str) -> list[str]:
    found = measured[suite, "direct"].differences_from(measured[suite, way])
    return [f"{suite}, {way}: {line}" for line in found if way in EQUAL or not line.startswith("tasks-")]


def table(measured: Measured) -> str:
    """Return the counts as a table in Markdown: checks passed / failed."""
    lines = [f"| suite | {' | '.join(WAYS)} |", f"| --- |{' --- |' * len(WAYS)}"]
    for suite in SUITES:
        cells = [_pair(measured[suite, way].counts) for way in WAYS]
        lines.append(f"| {suite} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _pair(counts: Counter) -> str:
    return f"{counts['SUCCESS']} / {counts['FAILURE']}"


async def main() -> int:
    measured = await measure()
    print(table(measured))
    print("\n".join(different := await differences(measured)))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
