"""Lists the servers' tools and judges calls without forwarding them, for `okayed tools` and `okayed explain`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.app.config import check_server_name
from gateway.app.gateway import Gateway, assemble
from gateway.app.stores import MEMORY, open_pins
from gateway.call.judging import restrict
from gateway.config.options import Config
from gateway.errors import UserError
from gateway.explain.report import ToolReport, build_report
from gateway.policy.evaluation import CallFacts, Verdict
from gateway.tools.catalogue import Tool
from gateway.wire import frames


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRow:
    """One tool of a server with its verdict, or the reason why the server's tools could not be listed."""

    server: str
    tool: Tool | None = None
    verdict: Verdict | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallExplanation:
    """The verdict for one call, with the tool and its classification."""

    server: str
    tool: Tool
    listed: bool
    verdict: Verdict

    @property
    def report(self) -> ToolReport:
        """The report about the tool."""
        tool = self.tool
        return build_report(
            self.server, tool.definition, tool.classification, self.verdict, listed=self.listed
        )


class BadArguments(UserError):
    """The arguments are not a JSON object."""


async def list_tool_rows(config: Config, server: str) -> list[ToolRow]:
    """List the tools of one server, or of all if *server* is "", and judge a call of each without arguments."""
    async with _open_temporary_gateway(config) as gateway:
        names = [check_server_name(config, server)] if server else list(config.servers)
        return [row for name in names for row in await _rows(gateway, name)]


async def _rows(gateway: Gateway, server: str) -> list[ToolRow]:
    if (problem := await gateway.catalogue.refresh(server)) is not None:
        return [ToolRow(server=server, problem=problem)]
    return [
        ToolRow(server=server, tool=tool, verdict=_judge(gateway, server, tool, {}))
        for tool in gateway.catalogue.listed_tools(server)
    ]


async def explain_call(config: Config, server: str, name: str, arguments: str) -> CallExplanation:
    """Judge one call as the proxy would; *arguments* is JSON text. Raises `BadArguments` or `UserError`."""
    try:
        parsed = frames.parse_json(arguments.encode("utf-8", "surrogateescape"))
    except frames.FrameError as error:
        raise BadArguments(f"--args{error.message.removeprefix('The message')}") from error
    if not isinstance(parsed, dict):
        raise BadArguments('--args must be a JSON object, such as {"user_name": "bob"}.')
    async with _open_temporary_gateway(config) as gateway:
        tool = await gateway.catalogue.find(check_server_name(config, server), name)
        return CallExplanation(
            server=server, tool=tool, listed=bool(tool.hash), verdict=_judge(gateway, server, tool, parsed)
        )


@asynccontextmanager
async def _open_temporary_gateway(config: Config) -> AsyncIterator[Gateway]:
    """Assemble a gateway with an in-memory store; it reads the accepted definitions of the real store."""
    accepted = await open_pins(config.store).pins()
    async with assemble(msgspec.structs.replace(config, store=MEMORY), accepted=accepted) as gateway:
        yield gateway


def _judge(gateway: Gateway, server: str, tool: Tool, arguments: dict[str, Any]) -> Verdict:
    facts = CallFacts(
        server=server,
        tool=tool.name,
        agent="local",
        arguments=arguments,
        classification=tool.classification,
        declared_names=tool.member_names,
    )
    settings = gateway.proxy.settings
    return restrict(settings.policy.evaluate(facts), tool, settings.pin)
